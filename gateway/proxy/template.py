"""A personality for a legacy completion: its prompt through the model's own chat template.

A completion continues a text and has no system message. With a personality, the text becomes
what a user says in a conversation, as llama-server's ``/apply-template`` writes it down for the
model. That changes what the model answers, so it is done only for clients that name the
personality themselves: the field ``personality``, ``X-Personality``, or a model name like
``m:pirate``, which is the only way for clients that can send neither. What ``/loadModel`` or the
key chose doesn't count.
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.backends.backend import Backend
from gateway.errors import BadRequest
from gateway.proxy.body import JsonObject, serialise
from gateway.proxy.failure import Failure

_JSON = b"Content-Type: application/json\r\n"
_TIMEOUT = 30.0  # seconds: it only writes text


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
    fetched = await backend.pool.fetch(
        "POST",
        "/apply-template",
        headers=_JSON,
        body=serialise(wanted),
        timeout=_TIMEOUT,
        max_body=64 * 2**20,
    )
    if fetched.status != 200:
        failure = Failure.read(fetched.status, fetched.body, fetched.headers)
        raise failure.as_error("the chat template could not be applied: ")
    written: str = orjson.loads(fetched.body)["prompt"]
    return written
