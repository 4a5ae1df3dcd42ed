"""Requests of Ollama's API as those of OpenAI's, or of llama-server's own. Pure.

Ollama's documentation: docs/api.md, "Generate a completion", "Generate a chat completion" and
"Generate Embeddings".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from gateway.errors import BadRequest
from gateway.ollama import context as contexts
from gateway.ollama.messages import in_openai_shape, with_pictures
from gateway.ollama.options import (
    keep_alive,
    output_format,
    probabilities,
    response_format,
    sampling,
    thinking,
)
from gateway.proxy.body import JsonObject, parse_object, serialise

CHAT: Final = "/v1/chat/completions"
RAW: Final = "/v1/completions"
INFILL: Final = "/infill"
EMBEDDINGS: Final = "/v1/embeddings"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for, beside the body that its model is sent.

    ``path``: the gateway's route that takes that body; empty: there is none, because nothing is to
    be answered, and the model is only loaded. ``stream``: whether the client wants its answer in
    lines. ``keep_alive``: seconds, see :func:`gateway.ollama.options.keep_alive`. ``before``: the
    messages so far, for an answer with a ``context``; ``dimensions``: of an embedding, 0: all;
    ``truncate``: whether texts to embed are cut where they are too long; ``thinks``: whether the
    model is told to think.
    """

    model: str
    path: str
    stream: bool = False
    keep_alive: float | None = None
    before: tuple[JsonObject, ...] | None = None
    dimensions: int = 0
    truncate: bool = False
    personality: str | None = None
    thinks: bool = False


Made = tuple[Asked, JsonObject]


def _named(body: Mapping[str, Any], *names: str) -> str:
    """Return the model that a body names. Raises :class:`BadRequest` if it names none."""
    for name in ("model", *names):
        if isinstance(model := body.get(name), str) and model:
            return model
    raise BadRequest("model is required", param="model")


def model_in(body: Mapping[str, Any]) -> str:
    """Return the model that the body of an administrative route names, also in its old field."""
    return _named(body, "name")


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRequest(f"{name} must be a string", param=name)
    return value


def _begun(body: Mapping[str, Any]) -> JsonObject:
    """Return the fields that every body has that is made of ``body``."""
    made: JsonObject = {"model": _named(body)}
    if (personality := body.get("personality")) is not None:
        made["personality"] = personality
    return made


def _asked(body: Mapping[str, Any], path: str, **more: Any) -> Asked:
    return Asked(
        _named(body),
        path,
        stream=is_streamed(body),
        keep_alive=keep_alive(body.get("keep_alive")),
        personality=body.get("personality"),
        thinks=body.get("think") not in (None, False),
        **more,
    )


def is_streamed(body: Mapping[str, Any]) -> bool:
    """Return whether an answer is to come in lines, which is what it does where nothing is said.

    Raises :class:`BadRequest` for what isn't a boolean.
    """
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise BadRequest("stream must be a boolean", param="stream")
    return stream is not False


def chat(body: JsonObject) -> Made:
    """Return what a body of /api/chat becomes."""
    made = _begun(body)
    messages = in_openai_shape(body.get("messages") or [])
    if not messages:
        return _asked(body, ""), made
    made |= {"messages": messages, **_generation(body), **thinking(body.get("think"))}
    if tools := body.get("tools"):
        made["tools"] = tools
    if (schema := output_format(body.get("format"))) is not None:
        made["response_format"] = response_format(schema)
    return _asked(body, CHAT), made


def generate(body: JsonObject) -> Made:
    """Return what a body of /api/generate becomes."""
    made = _begun(body)
    prompt, suffix, system = _text(body, "prompt"), _text(body, "suffix"), _text(body, "system")
    raw = body.get("raw") is True
    if not prompt:
        return _asked(body, ""), made
    if raw and (body.get("template") or system or body.get("context")):
        raise BadRequest("raw mode does not support template, system, or context", param="raw")
    if body.get("template"):
        raise BadRequest(
            "template can't be chosen here: the model's own is used. Leave it out, or send a "
            'prompt with "raw": true',
            param="template",
        )
    made |= _generation(body)
    schema = output_format(body.get("format"))
    if suffix or raw:
        made["personality"] = "none"  # nothing is put before a prompt that is sent as it is
        if body.get("images"):
            raise BadRequest("images can't be sent with raw or suffix", param="images")
        if schema is not None:
            made["json_schema"] = schema or {"type": "object"}
        if suffix:
            return _asked(body, INFILL), made | _gap(made, prompt, suffix)
        if made.pop("logprobs", None):
            made["logprobs"] = made.pop("top_logprobs", 1)  # as completions have it
        return _asked(body, RAW), {**made, "prompt": prompt}
    if schema is not None:
        made["response_format"] = response_format(schema)
    before = contexts.unpack(body.get("context"))
    if system and not any(message["role"] == "system" for message in before):
        before.insert(0, {"role": "system", "content": system})
    question: JsonObject = {"role": "user", "content": prompt}
    said = (*before, question)
    if body.get("images"):
        question = {"role": "user", "content": with_pictures(prompt, body["images"])}
    made |= {"messages": [*before, question], **thinking(body.get("think"))}
    return _asked(body, CHAT, before=said), made


def _gap(made: JsonObject, prompt: str, suffix: str) -> JsonObject:
    made.pop("logprobs", None)
    made.pop("top_logprobs", None)
    if (most := made.pop("max_tokens", None)) is not None:
        made["n_predict"] = most
    return {"input_prefix": prompt, "input_suffix": suffix}


def _generation(body: JsonObject) -> JsonObject:
    """Return the fields about how an answer is made, and that it comes as a stream.

    It always does: what the client gets is made of that. Its numbers come in the last event.
    """
    made = sampling(body.get("options"))
    made |= {"stream": True, "stream_options": {"include_usage": True}}
    if (top := probabilities(body)) is not None:
        made["logprobs"] = True
        if top:
            made["top_logprobs"] = top
    return made


def embed(body: JsonObject) -> Made:
    """Return what a body of /api/embed becomes."""
    given = body.get("input")
    texts = [given] if isinstance(given, str) and given else given or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadRequest("invalid input type", param="input")
    dimensions = body.get("dimensions") or 0
    if type(dimensions) is not int or dimensions < 0:
        raise BadRequest("dimensions must be a number of dimensions", param="dimensions")
    truncate = body.get("truncate")
    if truncate is not None and not isinstance(truncate, bool):
        raise BadRequest("truncate must be a boolean", param="truncate")
    more = {"dimensions": dimensions, "truncate": truncate is not False}
    asked = _asked(body, EMBEDDINGS if texts else "", **more)
    return asked, {**_begun(body), "input": texts, "encoding_format": "float"}


def embeddings(body: JsonObject) -> Made:
    """Return what a body of /api/embeddings, which embed has superseded, becomes."""
    prompt = _text(body, "prompt")
    made = {**_begun(body), "input": [prompt], "encoding_format": "float"}
    return _asked(body, EMBEDDINGS if prompt else ""), made


_KINDS: Final[Mapping[str, Callable[[JsonObject], Made]]] = MappingProxyType(
    {"chat": chat, "generate": generate, "embed": embed, "embeddings": embeddings}
)


def translate(raw: bytes, kind: str, most: int) -> tuple[Asked, bytes]:
    """Return what the body ``raw`` of the route ``/api/KIND`` asks for, and what it becomes.

    ``most``: values that it may hold. Raises :class:`gateway.proxy.body.NotJson`, and
    :class:`BadRequest` for what is no such body.
    """
    asked, made = _KINDS[kind](parse_object(raw, most))
    return asked, serialise(made)
