"""Applies the model's own chat template, by asking its llama-server (``/apply-template``).

:func:`through_template` is for a legacy completion with a personality. A completion continues a
text and has no system message; the text becomes what a user says in a conversation, as the
template writes it down. That changes what the model answers, so it is done only for clients that
name the personality themselves: the field ``personality``, ``X-Personality``, or a model name
like ``m:pirate``, which is the only way for clients that can send neither. What ``/loadModel`` or
the key chose doesn't count.

:class:`Templates` is for conversations with system messages that come late, or twice.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Sequence
from typing import Final
from weakref import WeakKeyDictionary

from gateway.backends.backend import Backend
from gateway.errors import GatewayError
from gateway.proxy.body import serialise
from gateway.proxy.failure import Failure
from gateway.proxy.personality import MessageFormat
from gateway.proxy.shaping import conversations, fit, prompt_in, system_roles, with_prompts
from gateway.upstream import Fetched, UpstreamRequest
from gateway.workers import WORKERS

_JSON = b"Content-Type: application/json\r\n"
_TIMEOUT = 30.0  # seconds: it only writes text
#: How many prompts of one request are sent to the template at once.
_AT_ONCE: Final = 4
_log = logging.getLogger(__name__)


async def through_template(backend: Backend, raw: bytes, prompt: str) -> bytes:
    """Return a completion's body, each of whose prompts is written as a conversation it begins.

    ``prompt`` is the personality's. Raises :class:`BadRequest` for prompts that are no texts.
    """
    (several, lengths), questions = await WORKERS.run(
        conversations, raw, prompt, backend.spec.sent_as
    )
    assert questions is not None
    starts = itertools.accumulate(lengths, initial=0)
    pieces = [questions[at : at + size] for at, size in zip(starts, lengths, strict=False)]
    answers: list[bytes] = [b""] * len(pieces)
    waiting = iter(enumerate(pieces))

    async def ask() -> None:
        for number, question in waiting:
            answers[number] = await _written(backend, question)

    # A few at once: a slot is held meanwhile, and there may be many.
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(_AT_ONCE, len(pieces))):
                group.create_task(ask())
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    data = b"".join((*answers, raw))
    _, body = await WORKERS.run(with_prompts, data, [*map(len, answers)], several)
    assert body is not None
    return body


async def _written(backend: Backend, question: bytes) -> bytes:
    fetched = await _apply(backend, question)
    if fetched.status != 200:
        failure = Failure.read(fetched.status, fetched.body, fetched.headers)
        raise failure.as_error("the chat template could not be applied: ")
    return fetched.body


async def _apply(backend: Backend, conversation: bytes) -> Fetched:
    return await backend.pool.fetch(
        UpstreamRequest("POST", "/apply-template", _JSON, conversation),
        timeout=_TIMEOUT,
        max_body=64 * 2**20,
    )


class Templates:
    """A record of which system messages the chat templates of running models take.

    Found out with a conversation of marks, all of which must come out in their order: a template
    may raise an exception, but may also say something else first, or leave it out. That is done
    once for each start of a model, when the first such request comes; no other one costs
    anything.
    """

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Backend, tuple[int, dict[Sequence[str], bool]]] = (
            WeakKeyDictionary()
        )

    async def fitted(self, backend: Backend, format: MessageFormat, raw: bytes) -> bytes:
        """Return the body in ``raw``, whose system messages are as the model's template
        takes them.
        """
        # llama.cpp's own templates don't know `developer`: some leave it out, for others whoever
        # is neither user nor system is the assistant. Jinja's are told `system` by llama.cpp.
        rename = backend.spec.names_template
        (first, late), _ = await WORKERS.run(system_roles, raw, format.name, rename)
        join = len(first) > 1 and not await self._takes(backend, *first, "user")
        move = False
        for role in late:
            # After an answer, before one, and last of all.
            said = ("system", "user", role, "assistant", role, "user", "assistant", role)
            if not await self._takes(backend, *said):
                move = True
                break
        if not (rename or join or move):
            return raw
        _, body = await WORKERS.run(fit, raw, format.name, rename, join, move)
        assert body is not None
        return body

    async def _takes(self, backend: Backend, *roles: str) -> bool:
        """Return whether what these say, one after the other, is written down in this order."""
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
            fetched = await _apply(backend, serialise({"messages": messages}))
        except GatewayError as error:
            # What is the matter will show when the request itself is sent. Not remembered.
            _log.warning("model %s: %s", backend.spec.name, error.message)
            return False
        taken = fetched.status == 200 and _in_order(fetched.body, marks)
        if starts == backend.starts:
            known[roles] = taken
        return taken


def _in_order(answer: bytes, marks: Sequence[str]) -> bool:
    prompt = prompt_in(answer)
    places = [prompt.find(mark) for mark in marks] if prompt is not None else [-1]
    return min(places) >= 0 and places == sorted(places)
