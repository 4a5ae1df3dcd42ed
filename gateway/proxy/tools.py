"""Tools and their calls in a body, as llama-server takes them; or what is wrong, and where. Pure.

llama-server answers a 500 to a tool without a function, and to a call without a type, which
OpenAI's clients lose where they put a streamed call together. What can only be meant one way is
filled in; of what is refused it is said which it is, before any model is loaded for it. Only for
models of our own: servers elsewhere know other kinds of tools.
"""

from __future__ import annotations

from typing import Any

from gateway.errors import BadRequest
from gateway.proxy.body import JsonObject, json_type

_FUNCTION = "function"


def settle_chat(body: JsonObject) -> bool:
    """Complete ``tools`` of a chat, and ``tool_calls`` in its history. Returns whether anything was
    filled in.

    Raises :class:`BadRequest`, which names the place.
    """
    changed = False
    for at, tool in _objects(body.get("tools"), "tools"):
        changed |= _has_function(tool, at)
    for index, message in enumerate(body["messages"]):
        if (calls := message.get("tool_calls")) is None:
            continue
        for at, call in _objects(calls, f"messages[{index}].tool_calls"):
            changed |= _has_function(call, at)
            changed |= _filled(call[_FUNCTION], "arguments", "{}")
    return changed


def settle_responses(body: JsonObject) -> bool:
    """Do the same for a Responses body. A thought may have no text that was told:
    it is empty.
    """
    changed = False
    for at, tool in _objects(body.get("tools"), "tools"):
        if tool.get("type") == _FUNCTION:  # others, like web_search, are skipped by llama-server
            _has_name(tool, at)
    items = body["input"]
    for index, item in enumerate(items if isinstance(items, list) else ()):
        kind = item.get("type")
        if kind == "function_call":
            _has_name(item, f"input[{index}]")
            changed |= _filled(item, "arguments", "{}")
        elif kind == "reasoning" and not item.get("content"):
            item["content"] = [{"type": "reasoning_text", "text": ""}]
            changed = True
    return changed


def settle_anthropic(body: JsonObject) -> bool:
    """Do the same for a Messages body, where nothing need be filled in."""
    for at, tool in _objects(body.get("tools"), "tools"):
        _has_name(tool, at)
    return False


def _objects(items: Any, at: str) -> list[tuple[str, JsonObject]]:
    """Return each object of a list, with its place; none if there is no list."""
    if items is None:
        return []
    if not isinstance(items, list):
        raise BadRequest(f"`{at}` must be a list of objects, not {json_type(items)}", param=at)
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            where = f"{at}[{index}]"
            raise BadRequest(f"`{where}` must be an object, not {json_type(item)}", param=where)
    return [(f"{at}[{index}]", item) for index, item in enumerate(items)]


def _has_function(item: JsonObject, at: str) -> bool:
    """Return whether the type of a tool or a call of Chat Completions was filled in."""
    function = item.get(_FUNCTION)
    changed = isinstance(function, dict) and _filled(item, "type", _FUNCTION)
    if (kind := item.get("type")) != _FUNCTION:
        raise BadRequest(
            f"`{at}.type` is {_shown(kind)}, and the model takes only functions", param=f"{at}.type"
        )
    if not isinstance(function, dict):
        where = f"{at}.function"
        what = f"must be an object, not {json_type(function)}" if function else "is missing"
        raise BadRequest(f"`{where}` {what}: an object with a `name`", param=where)
    _has_name(function, f"{at}.function")
    return changed


def _has_name(item: JsonObject, at: str) -> None:
    name = item.get("name")
    if not isinstance(name, str):
        what = "is missing" if name is None else f"must be a text, not {json_type(name)}"
        raise BadRequest(f"`{at}.name` {what}", param=f"{at}.name")


def _filled(item: JsonObject, field: str, value: str) -> bool:
    if item.get(field) is not None:
        return False
    item[field] = value
    return True


def _shown(kind: object) -> str:
    return "missing" if kind is None else repr(kind)[:60]
