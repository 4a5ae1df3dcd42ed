"""An error of llama-server's, and where in the request it is, or what to change for it. Pure.

llama-server says what is wrong with a request, but not where. Looked for only when it has refused
one, so that others cost nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import orjson

from gateway.errors import BadRequest
from gateway.proxy.ability import MEDIA, sentence
from gateway.proxy.body import json_type
from gateway.proxy.failure import Failure
from gateway.proxy.media import MEDIA_TYPES

_ARGUMENTS = "Failed to parse tool call arguments as JSON"
_MESSAGES = "Failed to parse messages"
_UNKNOWN_TOKEN = re.compile(r"vector::_M_range_check\b")
Headers = Iterable[tuple[bytes, bytes]]
#: A place in a body, and what stands there.
Place = tuple[str, Any]


def read_failure(
    model: str,
    here: bool,
    target: str,
    asked: object,
    status: int,
    answer: bytes,
    said: Headers = (),
) -> Failure:
    """The error in ``answer``, which ``model`` gave to ``asked`` at ``target``.

    ``here``: it is one of our own, whose entry in models.json can be changed. ``asked`` is the
    body that it got; a streamed one can't be looked into any more. ``said``: the answer's headers.
    """
    failure = Failure.read(status, answer, said)
    if status < 500 and failure.lacking is None:
        return failure
    if failure.status >= 500:
        if target != "/detokenize" or not _UNKNOWN_TOKEN.match(failure.message):
            return failure
        message = "`tokens` holds one that the model's vocabulary does not have"
        return _told(replace(failure, status=400, type=BadRequest.type, code=None), message, None)
    place = _find(failure, asked)
    message, param = failure.message, None
    if failure.lacking is not None and here:
        # What llama-server says here is for who starts it.
        message = sentence(failure.lacking, model)
    if place is not None:
        param, wrong = place
        message = f"`{param}`: {wrong or message}"
    return _told(failure, message, param)


def media_in(body: dict[str, Any]) -> Place | None:
    """The first picture or sound in a body."""
    for name in ("messages", "input", "prompt", "content"):
        for where, value in _walk(name, body.get(name)):
            if isinstance(value, dict):
                kind = value.get("type")
                if (isinstance(kind, str) and kind in MEDIA_TYPES) or "multimodal_data" in value:
                    return where, None
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
    """Calls in the history of a chat whose arguments are no JSON."""
    for index, message in _objects(messages):
        for number, call in _objects(message.get("tool_calls")):
            function = call.get("function")
            if isinstance(function, dict) and (wrong := _no_json(function.get("arguments"))):
                yield f"messages[{index}].tool_calls[{number}].function.arguments", wrong


def _arguments(items: Any) -> Iterator[Place]:
    """The same in the input of Responses."""
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
    """Parts of messages that should have a text."""
    for index, message in _objects(body.get(field)):
        for number, part in _objects(message.get("content")):
            if str(part.get("type")).endswith("text") and not isinstance(part.get("text"), str):
                yield f"{field}[{index}].content[{number}].text", "a text is missing"


def _objects(value: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, item in enumerate(value if isinstance(value, list) else ()):
        if isinstance(item, dict):
            yield index, item


def _walk(where: str, value: Any) -> Iterator[Place]:
    """Everything in ``value``, outer things first. No recursion: clients choose how deep it is."""
    waiting = [(where, value)]
    while waiting:
        at, value = waiting.pop()
        yield at, value
        if isinstance(value, list):
            waiting += [(f"{at}[{n}]", item) for n, item in enumerate(value)][::-1]
        elif isinstance(value, dict):
            waiting += [(f"{at}.{key}", item) for key, item in value.items()][::-1]
