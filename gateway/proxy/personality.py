"""A request body and a personality -> the body with its system prompt. Pure.

There is one system message afterwards: the personality first, then what the client's own system
messages said, in their order. Several system messages, or one in the middle, are refused by
many chat templates. The bodies are changed in place: the caller has parsed them for this.
"""

from __future__ import annotations

from typing import Any

from gateway.errors import BadRequest

JsonObject = dict[str, Any]

#: Roles that speak for the application (OpenAI renamed `system` to `developer` in 2024).
_SYSTEM_ROLES = frozenset({"system", "developer"})


def check_messages(body: JsonObject) -> list[Any]:
    """The ``messages`` of a chat request. Raises :class:`BadRequest` if they aren't any."""
    try:
        messages = body["messages"]
    except KeyError:
        raise BadRequest(
            "`messages` is missing: a list of objects with `role` and `content`", param="messages"
        ) from None
    if not isinstance(messages, list):
        raise BadRequest(
            f"`messages` must be a list of objects with `role` and `content`, not "
            f"{_json_type(messages)}",
            param="messages",
        )
    if not messages:
        raise BadRequest("`messages` must hold at least one message", param="messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise BadRequest(
                f"`messages[{index}]` must be an object, not {_json_type(message)}",
                param=f"messages[{index}]",
            )
    return messages


def apply_to_chat(body: JsonObject, prompt: str) -> None:
    """Put ``prompt`` into a chat-completions body (OpenAI reference, Chat Completions)."""
    messages = check_messages(body)
    contents = [prompt]
    others = []
    for message in messages:
        if message.get("role") in _SYSTEM_ROLES:
            contents.append(message.get("content"))
        else:
            others.append(message)
    body["messages"] = [{"role": "system", "content": _joined(contents)}, *others]


def _joined(contents: list[Any]) -> Any:
    """Texts as one text; a list of parts if a part is something else than text."""
    texts: list[str] = []
    for content in contents:
        if isinstance(content, str):
            texts.append(content)
        elif isinstance(content, list) and all(_is_text(part) for part in content):
            texts += [part["text"] for part in content]
        elif content is not None:
            return _as_parts(contents)
    return "\n\n".join(text for text in texts if text)


def _as_parts(contents: list[Any]) -> list[Any]:
    parts: list[Any] = []
    for content in contents:
        if isinstance(content, list):
            parts += content
        elif content is not None:
            parts.append({"type": "text", "text": content})
    return parts


def _is_text(part: Any) -> bool:
    return (
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
    )


def _json_type(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return "null" if value is None else names.get(type(value), "a number")
