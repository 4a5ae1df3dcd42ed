"""Puts the system prompt of a personality into a request body. Pure.

The personality comes first, then what the client's own system messages say that stand at the
beginning, as one system message. What the client says to the model later on stays where it is:
moved to the front it would change the beginning of every prompt after it, and llama-server could
take up nothing of the conversation from its cache. Where a chat template refuses it there, see
:mod:`gateway.proxy.system_messages`. The bodies are changed in place: the caller has parsed them
for this.

Each :class:`MessageFormat` knows where its API keeps the system prompt. A legacy completion has
no place for one: see :mod:`gateway.proxy.template`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.errors import BadRequest
from gateway.proxy import lenience, tools
from gateway.proxy.body import json_type
from gateway.proxy.media import DATA_ONLY, Beginnings, refuse_remote, refuse_remote_in

JsonObject = dict[str, Any]

#: Roles that speak for the application (OpenAI renamed `system` to `developer` in 2024).
SYSTEM_ROLES = ("system", "developer")  # no set: in a body a role may be anything, also a list

#: What :class:`MessageCheck` may find in a body, as bits: a system message that isn't the first;
#: one with the role developer;
MANY_SYSTEMS, DEVELOPER = 1, 2
#: pictures or sounds; tool calls, or reasoning.
WITH_MEDIA, WITH_CALLS = 4, 8


class MessageCheck(Protocol):
    """A check of messages: see :class:`MessageFormat`."""

    def __call__(self, body: JsonObject, allowed: Beginnings = DATA_ONLY, /) -> int: ...


@dataclass(frozen=True, slots=True)
class MessageFormat:
    """The way one API writes a conversation.

    ``check`` raises :class:`BadRequest` for a body that is none of this format, or that has media
    at addresses that do not begin as allowed (:data:`DATA_ONLY` by default), and returns what it
    found; ``apply`` puts a system prompt in, where it has a place, and without one (``None``)
    only makes one system message of those at the beginning. ``nulls``: where a ``null`` is as
    good as nothing. ``settle`` is for llama-server: see :mod:`gateway.proxy.tools`.
    """

    name: str
    check: MessageCheck
    apply: Callable[[JsonObject, str | None], None] | None
    nulls: lenience.FieldPlace = lenience.OTHER
    settle: Callable[[JsonObject], bool] | None = None


# --- OpenAI's Chat Completions -------------------------------------------------------------


def check_messages(body: JsonObject, allowed: Beginnings = DATA_ONLY) -> int:
    """Look through the ``messages`` of a chat request: see :class:`MessageFormat`."""
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
    found = 0
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise BadRequest(
                f"`messages[{index}]` must be an object, not {json_type(message)}",
                param=f"messages[{index}]",
            )
        role = message.get("role")
        if role != "user":  # most are
            if role in SYSTEM_ROLES:
                found |= (MANY_SYSTEMS if index else 0) | (DEVELOPER if role != "system" else 0)
            elif "tool_calls" in message:
                found |= WITH_CALLS
        content = message.get("content")
        if (content.__class__ is list or content.__class__ is dict) and refuse_remote_in(
            content, allowed
        ):
            found |= WITH_MEDIA
    return found


def apply_to_chat(body: JsonObject, prompt: str | None) -> None:
    """Put ``prompt`` into a chat-completions body (OpenAI reference, Chat Completions)."""
    messages = body["messages"]
    lead = leading(messages)
    contents = [message.get("content") for message in messages[:lead]]
    if prompt is None:
        first = {**messages[0], "content": _joined(contents)}
    else:
        first = {"role": "system", "content": _joined([prompt, *contents]) if lead else prompt}
    body["messages"] = [first, *messages[lead:]]


# --- OpenAI's Responses --------------------------------------------------------------------


def check_responses(body: JsonObject, allowed: Beginnings = DATA_ONLY) -> int:
    """Raise :class:`BadRequest` unless ``input`` is a text or a list of objects."""
    items = body.get("input")
    if isinstance(items, str):
        return 0
    if items is None:
        raise BadRequest("`input` is missing: a text, or a list of items", param="input")
    if not isinstance(items, list):
        raise BadRequest(
            f"`input` must be a text or a list of items, not {json_type(items)}", param="input"
        )
    found = 0
    first = 0 if body.get("instructions") else 1  # which system message would be another one
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise BadRequest(
                f"`input[{index}]` must be an object, not {json_type(item)}",
                param=f"input[{index}]",
            )
        role = item.get("role")
        if role in SYSTEM_ROLES:
            found |= MANY_SYSTEMS if index >= first else 0
            found |= DEVELOPER if role != "system" else 0
        elif role is None:
            found |= WITH_CALLS
    if refuse_remote_in(items, allowed):
        found |= WITH_MEDIA
    return found


def apply_to_responses(body: JsonObject, prompt: str | None) -> None:
    """Put ``prompt`` into a Responses body (OpenAI reference, Responses): ``instructions``.

    Items at the beginning of the input that speak for the application go there too. Where one
    holds more than text, which ``instructions`` cannot, all of it becomes one such item instead.
    """
    contents = [prompt, body.get("instructions")]
    items = body["input"]
    lead = leading(items) if isinstance(items, list) else 0
    contents += [item.get("content") for item in items[:lead]]
    others = items[lead:] if lead else items
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

#: The beginning of a text that Claude Code puts before its system prompt, different with each
#: request. llama-server knows it too, but only at the beginning of a text.
_VARIES = "x-anthropic-billing-header"


def check_anthropic(body: JsonObject, allowed: Beginnings = DATA_ONLY) -> int:
    """Do the same as :func:`check_messages`; ``system`` may be a text or a list of blocks."""
    found = check_messages(body, allowed)
    system = body.get("system")
    if system is None:
        return found
    if not isinstance(system, str | list):
        raise BadRequest(
            f"`system` must be a text or a list of blocks, not {json_type(system)}", param="system"
        )
    if system and is_system(body["messages"][0]):
        found |= MANY_SYSTEMS
    return found


def apply_to_anthropic(body: JsonObject, prompt: str | None) -> None:
    """Put ``prompt`` into a Messages body (Anthropic API reference, Messages): ``system``.

    A text stays a text. In a list of blocks it becomes the first, with the blank line that
    llama-server doesn't put between blocks; the others keep their ``cache_control``. Messages
    at the beginning with the role ``system`` go there as well if they are text. What varies from
    request to request comes last, so that what stands before it is found in the cache.
    """
    system, messages = body.get("system"), body["messages"]
    contents = [message.get("content") for message in messages[: leading(messages)]]
    contents = list(itertools.takewhile(_is_all_text, contents))
    lead = len(contents)
    body["messages"] = messages[lead:]
    system, varying = _without_varying(system)
    if not isinstance(system, list):
        joined = _joined([prompt, system, *contents])
        body["system"] = joined
        if varying:
            between = [{"type": "text", "text": f"{joined}\n\n"}] if joined else []
            body["system"] = [*between, *varying]
        return
    first = []
    if prompt is not None:
        follows = bool(system or varying)
        first = [{"type": "text", "text": f"{prompt}\n\n" if prompt and follows else prompt}]
    more = _joined(contents)
    last = [{"type": "text", "text": f"\n\n{more}"}] if more else []
    if varying and (system or last):
        varying = [{"type": "text", "text": "\n\n"}, *varying]
    body["system"] = [*first, *system, *last, *varying]


def _without_varying(system: Any) -> tuple[Any, list[Any]]:
    """Return a ``system`` without what varies with each request, and that, as blocks
    of their own.
    """
    if isinstance(system, str) and system.startswith(_VARIES):
        line, _, rest = system.partition("\n")
        return rest.lstrip("\n"), [{"type": "text", "text": line}]
    if isinstance(system, list):
        varying = [block for block in system if _is_varying(block)]
        if varying:
            return [block for block in system if not _is_varying(block)], varying
    return system, []


def _is_varying(block: Any) -> bool:
    """Return whether a block varies with each request, and holds nothing else.

    A block with more than that line is a system prompt as well, and is kept.
    """
    if not _is_text(block) or not block["text"].startswith(_VARIES):
        return False
    return "\n" not in block["text"].strip()


# --- all of them ---------------------------------------------------------------------------

CHAT = MessageFormat("chat", check_messages, apply_to_chat, lenience.CHAT, tools.settle_chat)
RESPONSES = MessageFormat(
    "responses",
    check_responses,
    apply_to_responses,
    lenience.RESPONSES,
    tools.settle_responses,
)
ANTHROPIC = MessageFormat(
    "anthropic",
    check_anthropic,
    apply_to_anthropic,
    lenience.ANTHROPIC,
    tools.settle_anthropic,
)


def _check_media(body: JsonObject, allowed: Beginnings = DATA_ONLY) -> int:
    return WITH_MEDIA if refuse_remote(body, allowed) else 0


#: Legacy completions: a personality applies only if the client asks for it, by the chat template.
COMPLETION = MessageFormat("completion", _check_media, None)
#: Bodies that are no conversation (embeddings, tokens, fill-in-the-middle): no personality applies.
NONE = MessageFormat("none", _check_media, None)


def is_system(message: JsonObject) -> bool:
    """Return whether a message, or an item of Responses, speaks for the application."""
    return message.get("role") in SYSTEM_ROLES


def leading(messages: list[JsonObject]) -> int:
    """Return how many of them speak for the application before anybody else does."""
    lead = 0
    for message in messages:
        if message.get("role") not in SYSTEM_ROLES:
            break
        lead += 1
    return lead


def _joined(contents: list[Any]) -> Any:
    """Return texts as one text, or a list of parts if one part isn't text."""
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
