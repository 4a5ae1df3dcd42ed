"""A request body and a personality -> the body with its system prompt. Pure.

There is one system message afterwards: the personality first, then what the client's own system
messages said, in their order. Several system messages, or one in the middle, are refused by
many chat templates. The bodies are changed in place: the caller has parsed them for this.

Each :class:`MessageFormat` knows where its API keeps the system prompt. A legacy completion has
no place for one: see :mod:`gateway.proxy.template`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.errors import BadRequest
from gateway.proxy.body import json_type
from gateway.proxy.media import DATA_ONLY, Beginnings, refuse_remote, refuse_remote_in

JsonObject = dict[str, Any]

#: Roles that speak for the application (OpenAI renamed `system` to `developer` in 2024).
_SYSTEM_ROLES = ("system", "developer")  # no set: in a body a role may be anything, also a list


class Check(Protocol):
    """See :class:`MessageFormat`."""

    def __call__(self, body: JsonObject, allowed: Beginnings = DATA_ONLY, /) -> object: ...


@dataclass(frozen=True, slots=True)
class MessageFormat:
    """How one API writes a conversation.

    ``check`` raises :class:`BadRequest` for a body that is none of this format, or that has media
    at addresses that do not begin as allowed (:data:`DATA_ONLY` by default); ``apply`` puts a
    system prompt in, where it has a place.
    """

    name: str
    check: Check
    apply: Callable[[JsonObject, str], None] | None


# --- OpenAI's Chat Completions -------------------------------------------------------------


def check_messages(body: JsonObject, allowed: Beginnings = DATA_ONLY) -> list[Any]:
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
            f"{json_type(messages)}",
            param="messages",
        )
    if not messages:
        raise BadRequest("`messages` must hold at least one message", param="messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise BadRequest(
                f"`messages[{index}]` must be an object, not {json_type(message)}",
                param=f"messages[{index}]",
            )
        content = message.get("content")
        if content.__class__ is list or content.__class__ is dict:
            refuse_remote_in(content, allowed)
    return messages


def apply_to_chat(body: JsonObject, prompt: str) -> None:
    """Put ``prompt`` into a chat-completions body (OpenAI reference, Chat Completions)."""
    contents = []
    others = []
    for message in body["messages"]:
        if message.get("role") in _SYSTEM_ROLES:
            contents.append(message.get("content"))
        else:
            others.append(message)
    content = _joined([prompt, *contents]) if contents else prompt
    body["messages"] = [{"role": "system", "content": content}, *others]


# --- OpenAI's Responses --------------------------------------------------------------------


def check_responses(body: JsonObject, allowed: Beginnings = DATA_ONLY) -> None:
    """Raise :class:`BadRequest` unless ``input`` is a text or a list of objects."""
    items = body.get("input")
    if isinstance(items, str):
        return
    if items is None:
        raise BadRequest("`input` is missing: a text, or a list of items", param="input")
    if not isinstance(items, list):
        raise BadRequest(
            f"`input` must be a text or a list of items, not {json_type(items)}", param="input"
        )
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise BadRequest(
                f"`input[{index}]` must be an object, not {json_type(item)}",
                param=f"input[{index}]",
            )
    refuse_remote_in(items, allowed)


def apply_to_responses(body: JsonObject, prompt: str) -> None:
    """Put ``prompt`` into a Responses body (OpenAI reference, Responses): ``instructions``.

    Items of the input that speak for the application go there too. Where one holds more than
    text, which ``instructions`` cannot, all of it becomes one such item instead.
    """
    contents = [prompt, body.get("instructions")]
    items = body["input"]
    others = items
    if isinstance(items, list):
        others = [item for item in items if not _is_system(item)]
        contents += [item.get("content") for item in items if _is_system(item)]
    joined = _joined(contents)
    if isinstance(joined, str):
        body["instructions"] = joined
        body["input"] = others
        return
    for part in joined:
        if isinstance(part, dict) and part.get("type") == "text":
            part["type"] = "input_text"
    body.pop("instructions", None)
    body["input"] = [{"role": "system", "content": joined}, *others]


# --- Anthropic's Messages ------------------------------------------------------------------


def apply_to_anthropic(body: JsonObject, prompt: str) -> None:
    """Put ``prompt`` into a Messages body (Anthropic API reference, Messages): ``system``.

    A text stays a text. In a list of blocks it becomes the first, with the blank line that
    llama-server doesn't put between blocks; the others keep their ``cache_control``. Messages
    with the role ``system`` go there as well if they are text.
    """
    system = body.get("system")
    if system is not None and not isinstance(system, str | list):
        raise BadRequest(
            f"`system` must be a text or a list of blocks, not {json_type(system)}",
            param="system",
        )
    contents = []
    others = []
    for message in body["messages"]:
        if _is_system(message) and _is_all_text(message.get("content")):
            contents.append(message["content"])
        else:
            others.append(message)
    body["messages"] = others
    if isinstance(system, list):
        first = {"type": "text", "text": f"{prompt}\n\n" if prompt and system else prompt}
        more = _joined(contents)
        last = [{"type": "text", "text": f"\n\n{more}"}] if more else []
        body["system"] = [first, *system, *last]
    else:
        body["system"] = _joined([prompt, system, *contents])


# --- all of them ---------------------------------------------------------------------------

CHAT = MessageFormat("chat", check_messages, apply_to_chat)
RESPONSES = MessageFormat("responses", check_responses, apply_to_responses)
ANTHROPIC = MessageFormat("anthropic", check_messages, apply_to_anthropic)
#: Legacy completions: through the model's chat template, and only if the client asks for it.
COMPLETION = MessageFormat("completion", refuse_remote, None)
#: Not a conversation: embeddings, tokens, fill-in-the-middle. A personality has no place in it.
NONE = MessageFormat("none", refuse_remote, None)


def _is_system(message: JsonObject) -> bool:
    return message.get("role") in _SYSTEM_ROLES


def _joined(contents: list[Any]) -> Any:
    """Texts as one text; a list of parts if a part is something else than text."""
    texts: list[str] = []
    for content in contents:
        if isinstance(content, str):
            texts.append(content)
        elif isinstance(content, list) and _is_all_text(content):
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


def _is_all_text(content: Any) -> bool:
    return isinstance(content, str) or (
        isinstance(content, list) and all(_is_text(part) for part in content)
    )


def _is_text(part: Any) -> bool:
    return (
        isinstance(part, dict)
        and part.get("type") in ("text", "input_text")
        and isinstance(part.get("text"), str)
    )
