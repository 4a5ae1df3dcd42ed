"""Finds the field of a request that an error of llama-server is about, or what to change.

llama-server says what is wrong with a request, but not where. Looked for only when it has refused
one, so that others cost nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import orjson

from gateway.errors import BadRequest, Unavailable
from gateway.proxy.ability import MEDIA, sentence
from gateway.proxy.body import json_type
from gateway.proxy.failure import Failure
from gateway.proxy.media import MEDIA_TYPES
from gateway.workers import WORKERS, is_small

_ARGUMENTS = "Failed to parse tool call arguments as JSON"
_MESSAGES = "Failed to parse messages"
#: The message of C++'s libraries (GNU's, LLVM's) about a number out of range: it names no field.
_FROM_VECTOR = re.compile(r"vector(::\w+|$)")
#: Path -> the field that holds such a number.
_OUT_OF_RANGE: Mapping[str, tuple[str | None, str]] = MappingProxyType(
    {
        "/detokenize": (None, "`tokens` holds one that the model's vocabulary does not have"),
        "/v1/rerank": ("top_n", "`top_n` must be a whole number from 1 on, and not too large"),
        "/v1/reranking": ("top_n", "`top_n` must be a whole number from 1 on, and not too large"),
    }
)
Headers = Iterable[tuple[bytes, bytes]]
#: A place in a body, and the value there.
Place = tuple[str, Any]
#: A place as a linked list: the place of its container, and its key or index in that.
_At = tuple["_At | None", Any]
_LONGEST = 200  # characters of a place that are shown


def read_failure(
    model: str,
    here: bool,
    target: str,
    asked: object,
    status: int,
    answer: bytes,
    said: Headers = (),
) -> Failure:
    """Return the error in ``answer``, which ``model`` gave to ``asked`` at ``target``.

    ``here``: it is one of our own, whose entry in models.json can be changed. ``asked`` is the
    body as the client sent it; a streamed one can't be looked into any more. ``said``: the
    headers of the answer.
    """
    failure = Failure.read(status, answer, said)
    if status < 500 and failure.lacking is None:
        return failure
    if failure.status >= 500:
        param, message = _OUT_OF_RANGE.get(target.partition("?")[0], (None, None))
        if message is None or not _FROM_VECTOR.match(failure.message):
            return failure
        return _told(replace(failure, status=400, type=BadRequest.type, code=None), message, param)
    place = _find(failure, asked)
    message, param = failure.message, None
    if failure.lacking is not None and here:
        # What llama-server says here is for who starts it.
        message = sentence(failure.lacking, model)
    if place is not None:
        param, wrong = place
        message = f"`{param}`: {wrong or message}"
    return _told(failure, message, param)


async def failure_of(
    model: str,
    here: bool,
    target: str,
    asked: object,
    status: int,
    answer: bytes,
    said: Headers = (),
) -> Failure:
    """Return the same as :func:`read_failure`, where a large body must keep nobody else waiting."""
    if not isinstance(asked, bytes) or is_small(asked):
        return read_failure(model, here, target, asked, status, answer, said)
    about = model, here, target, status, answer, [*said]
    try:
        failure: Failure = (await WORKERS.run(_read_by_worker, asked, *about))[0]
    except Unavailable:  # then without the place
        return read_failure(model, here, target, None, status, answer, said)
    return failure


def _read_by_worker(
    asked: bytes, model: str, here: bool, target: str, status: int, answer: bytes, said: Headers
) -> tuple[Failure, None]:
    return read_failure(model, here, target, asked, status, answer, said), None


def media_in(body: dict[str, Any]) -> Place | None:
    """Return the first picture or sound in a body."""
    for name in ("messages", "input", "prompt", "content"):
        for at, value in _walk(name, body.get(name)):
            kind = value.get("type")
            if (isinstance(kind, str) and kind in MEDIA_TYPES) or "multimodal_data" in value:
                return _written(at), None
    return None


def _told(failure: Failure, message: str, param: str | None) -> Failure:
    fields = {**failure.fields, "param": param}
    return replace(failure, message=message, fields=fields)


def _find(failure: Failure, asked: object) -> Place | None:
    if not isinstance(asked, bytes):
        return None
    try:
        body = orjson.loads(asked)
    except ValueError:
        return None
    if not isinstance(body, dict):  # below /upstream nobody has looked at it
        return None
    if failure.lacking == MEDIA:
        return media_in(body)
    if failure.message.startswith(_ARGUMENTS):
        places = (*_arguments_of_chat(body.get("messages")), *_arguments(body.get("input")))
    elif failure.message.startswith(_MESSAGES):
        places = (
            *_without_role(body.get("messages")),
            *_without_text(body, "messages"),
            *_without_text(body, "input"),
        )
    else:
        places = ()
    return next(iter(places), None)


def _arguments_of_chat(messages: Any) -> Iterator[Place]:
    """Yield calls in the history of a chat whose arguments are not JSON."""
    for index, message in _objects(messages):
        for number, call in _objects(message.get("tool_calls")):
            function = call.get("function")
            if isinstance(function, dict) and (wrong := _no_json(function.get("arguments"))):
                yield f"messages[{index}].tool_calls[{number}].function.arguments", wrong


def _arguments(items: Any) -> Iterator[Place]:
    """Yield the same in the input of Responses."""
    for index, item in _objects(items):
        if item.get("type") == "function_call" and (wrong := _no_json(item.get("arguments"))):
            yield f"input[{index}].arguments", wrong


def _no_json(arguments: Any) -> str | None:
    if not isinstance(arguments, str):
        return None
    try:
        orjson.loads(arguments)
    except ValueError as error:
        return f"the arguments of a tool's call must be JSON, in a text: {error}"
    return None


def _without_role(messages: Any) -> Iterator[Place]:
    for index, message in _objects(messages):
        role = message.get("role")
        if not isinstance(role, str):
            what = "is missing" if role is None else f"must be a text, not {json_type(role)}"
            yield f"messages[{index}].role", f"the role {what}"


def _without_text(body: dict[str, Any], field: str) -> Iterator[Place]:
    """Yield parts of messages that should have a text."""
    for index, message in _objects(body.get(field)):
        for number, part in _objects(message.get("content")):
            text = part.get("text", 0)
            # A null has been made an empty text: see gateway.proxy.lenience.
            if str(part.get("type")).endswith("text") and not isinstance(text, str | None):
                yield f"{field}[{index}].content[{number}].text", "a text is missing"


def _objects(value: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, item in enumerate(value if isinstance(value, list) else ()):
        if isinstance(item, dict):
            yield index, item


def _walk(name: str, value: Any) -> Iterator[tuple[_At, dict[str, Any]]]:
    """Yield every object in ``value``, outer ones first.

    There is no recursion, and places aren't written out in advance: clients choose how deep a body
    is, and how long its keys are.
    """
    waiting: list[tuple[_At, Any]] = [((None, name), value)]
    while waiting:
        at, value = waiting.pop()
        if isinstance(value, dict):
            yield at, value
            inner: Iterable[tuple[Any, Any]] = value.items()
        else:
            inner = enumerate(value if isinstance(value, list) else ())
        found = [((at, key), item) for key, item in inner if isinstance(item, dict | list)]
        waiting += reversed(found)


def _written(at: _At) -> str:
    """Return a place as the text of ``param``, shortened if it's far too long."""
    steps = []
    outer, key = at
    while outer is not None:
        steps.append(f"[{key}]" if isinstance(key, int) else f".{key[:_LONGEST]}")
        outer, key = outer
    path = "".join((key, *reversed(steps)))
    return path if len(path) <= _LONGEST else f"{path[:_LONGEST]}..."
