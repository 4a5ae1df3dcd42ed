"""What takes the model's own chat template: its llama-server is asked by ``/apply-template``.

:func:`through_template` is for a legacy completion with a personality. A completion continues a
text and has no system message; the text becomes what a user says in a conversation, as the
template writes it down. That changes what the model answers, so it is done only for clients that
name the personality themselves: the field ``personality``, ``X-Personality``, or a model name
like ``m:pirate``, which is the only way for clients that can send neither. What ``/loadModel`` or
the key chose doesn't count.

:class:`Templates` is for conversations with system messages that come late, or twice.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import orjson

from gateway.backends.backend import Backend
from gateway.errors import BadRequest, GatewayError
from gateway.proxy.body import JsonObject, serialise
from gateway.proxy.failure import Failure
from gateway.proxy.late import as_system, into_users_words, systems
from gateway.proxy.personality import MessageFormat
from gateway.upstream import Fetched

_JSON = b"Content-Type: application/json\r\n"
_TIMEOUT = 30.0  # seconds: it only writes text
_log = logging.getLogger(__name__)


async def through_template(backend: Backend, body: JsonObject, prompt: str) -> bytes:
    """``body``, its ``prompt``, a text or a list of texts, written as a conversation it begins."""
    asked = body.get("prompt")
    texts: list[Any] = asked if isinstance(asked, list) else [asked]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise BadRequest("with a personality, `prompt` must be a text, or texts", param="prompt")
    written = [await _written(backend, body, prompt, text) for text in texts]
    return serialise({**body, "prompt": written if isinstance(asked, list) else written[0]})


async def _written(backend: Backend, body: JsonObject, prompt: str, text: str) -> str:
    wanted: JsonObject = {
        "messages": [{"role": "system", "content": prompt}, {"role": "user", "content": text}]
    }
    if (name := backend.spec.sent_as) is not None:
        wanted["model"] = name
    if "chat_template_kwargs" in body:
        wanted["chat_template_kwargs"] = body["chat_template_kwargs"]
    fetched = await _apply(backend, wanted)
    if fetched.status != 200:
        failure = Failure.read(fetched.status, fetched.body, fetched.headers)
        raise failure.as_error("the chat template could not be applied: ")
    written: str = orjson.loads(fetched.body)["prompt"]
    return written


async def _apply(backend: Backend, conversation: JsonObject) -> Fetched:
    return await backend.pool.fetch(
        "POST",
        "/apply-template",
        headers=_JSON,
        body=serialise(conversation),
        timeout=_TIMEOUT,
        max_body=64 * 2**20,
    )


class Templates:
    """Which system messages the chat templates of running models take.

    Found out with a conversation of marks, all of which must come out in their order: a template
    may raise an exception, but may also say something else first, or leave it out. That is done
    once for each start of a model, when the first such request comes; no other one costs
    anything.
    """

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Backend, tuple[int, dict[Sequence[str], bool]]] = (
            WeakKeyDictionary()
        )

    async def fitted(self, backend: Backend, format: MessageFormat, body: JsonObject) -> bytes:
        """``body``, whose system messages are as the model's template takes them."""
        if backend.spec.template:
            # llama.cpp's own templates don't know it: some leave it out, for others whoever is
            # neither user nor system is the assistant. Jinja's are told `system` by llama.cpp.
            as_system(format, body)
        first, late = systems(format, body)
        if len(first) > 1 and not await self._takes(backend, *first[:2], "user"):
            assert format.apply is not None
            format.apply(body, None)
        for role in late:
            # After an answer, before one, and last of all.
            said = ("system", "user", role, "assistant", role, "user", "assistant", role)
            if not await self._takes(backend, *said):
                into_users_words(format, body)
                break
        return serialise(body)

    async def _takes(self, backend: Backend, *roles: str) -> bool:
        """Whether what these say, one after the other, is written down in this order."""
        starts, known = self._known.get(backend, (-1, {}))
        if starts != backend.starts:
            starts, known = self._known[backend] = backend.starts, {}
        if (taken := known.get(roles)) is not None:
            return taken
        marks = [f"mark{number}mark" for number in range(len(roles))]
        messages = [
            {"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)
        ]
        try:
            fetched = await _apply(backend, {"messages": messages})
        except GatewayError as error:
            # What is the matter will show when the request itself is sent. Not remembered.
            _log.warning("model %s: %s", backend.spec.name, error.message)
            return False
        taken = fetched.status == 200 and _in_order(fetched.body, marks)
        if starts == backend.starts:
            known[roles] = taken
        return taken


def _in_order(answer: bytes, marks: Sequence[str]) -> bool:
    try:
        prompt = orjson.loads(answer)["prompt"]
        places = [prompt.index(mark) for mark in marks]
    except (ValueError, LookupError, TypeError, AttributeError):
        return False
    return places == sorted(places)
