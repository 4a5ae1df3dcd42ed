"""The beginning of a prompt that is the gateway's own, which the keys may share. Pure.

That is a personality's text, under template arguments of which there are few: nothing of it comes
from a client. So it tells nobody what another one asked, only that somebody used a personality.
Tools are not shared, nor are a client's own texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

#: The owner of what all keys share; no key has such an id.
SHARED: Final = "*"
#: Where each format has its system prompt, if that is no message.
_FIELDS: Final = {"anthropic": "system", "responses": "instructions"}
_EFFORTS: Final = frozenset({"none", "minimal", "low", "medium", "high"})
_BLANK_LINE: Final = "\n\n"


class SharedPrefix(NamedTuple):
    """A prompt's beginning: a personality's text, and what the template is told besides."""

    text: str
    thinking: bool | None = None
    effort: str | None = None

    def arguments(self) -> dict[str, Any]:
        """Return the template arguments as fields of a chat request."""
        made: dict[str, Any] = {}
        if self.thinking is not None:
            made["chat_template_kwargs"] = {"enable_thinking": self.thinking}
        if self.effort is not None:
            made["reasoning_effort"] = self.effort
        return made


def shared_prefix(
    body: Mapping[str, Any], format: str, before: Mapping[str, Any], text: str | None
) -> SharedPrefix | None:
    """Return what a prompt begins with that may be shared, if it does.

    ``text`` is the personality's; ``before``: what of ``body`` becomes part of the prompt besides
    the messages.
    """
    if not text or not _begins(_system_text(body, format), text):
        return None
    thinking: bool | None = None
    effort: str | None = None
    for name, value in before.items():
        if name == _FIELDS.get(format):
            continue
        if name == "chat_template_kwargs" and _is_thinking(value):
            thinking = value["enable_thinking"]
        elif name == "reasoning_effort" and isinstance(value, str) and value in _EFFORTS:
            effort = value
        else:
            return None
    return SharedPrefix(text, thinking, effort)


def _is_thinking(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and [*value] == ["enable_thinking"]
        and (type(value["enable_thinking"]) is bool)
    )


def _system_text(body: Mapping[str, Any], format: str) -> Any:
    """Return the text that a prompt begins with, ``None`` where that is no plain text."""
    if (field := _FIELDS.get(format)) is not None:
        system = body.get(field)
        if isinstance(system, list) and system and isinstance(system[0], dict):
            return system[0].get("text")
        return system
    messages = body.get("messages") if format == "chat" else None
    if not isinstance(messages, list) or not messages or not isinstance(messages[0], dict):
        return None
    return messages[0].get("content") if messages[0].get("role") == "system" else None


def _begins(found: Any, text: str) -> bool:
    if not isinstance(found, str) or not found.startswith(text):
        return False
    return len(found) == len(text) or found.startswith(_BLANK_LINE, len(text))
