"""Moves late system messages, for chat templates that allow them only at the beginning. Pure.

Many raise an exception at a system message that isn't the first (Qwen 3.5 and later: "System
message must be at the beginning"), others leave it out without a word. Its text then becomes
part of the user's words that it stands next to, in the order in which all of it was said: behind
a user's message that it follows, before one that follows it, and a message of its own where
neither does. A text between a call of a tool and its result goes behind the result.

What comes of a conversation only depends on what has been said up to there. So what comes of its
first turns is the beginning of what comes of all of them, which llama-server then finds in its
cache: messages are only ever added to, at their end.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.proxy.personality import (
    ANTHROPIC,
    CHAT,
    RESPONSES,
    JsonObject,
    MessageFormat,
    is_system,
    leading,
)

_BLANK_LINE = "\n\n"


@dataclass(frozen=True, slots=True)
class _ApiStyle:
    """The style in which one API writes system messages.

    ``field`` holds the messages, ``text`` is the type of a part with a user's words.
    ``of_tools``: whether a message is a call of tools, or the result of one, as (call, result).
    """

    field: str
    text: str
    of_tools: Callable[[JsonObject], tuple[bool, bool]]


def _in_chat(message: JsonObject) -> tuple[bool, bool]:
    return bool(message.get("tool_calls")), message.get("role") == "tool"


def _in_responses(item: JsonObject) -> tuple[bool, bool]:
    kind = str(item.get("type"))
    return kind.endswith("_call"), kind.endswith("_call_output")


def _in_anthropic(message: JsonObject) -> tuple[bool, bool]:
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    kinds = [part.get("type") for part in parts if isinstance(part, dict)]
    return "tool_use" in kinds, "tool_result" in kinds


_STYLES = {
    CHAT.name: _ApiStyle("messages", "text", _in_chat),
    RESPONSES.name: _ApiStyle("input", "input_text", _in_responses),
    ANTHROPIC.name: _ApiStyle("messages", "text", _in_anthropic),
}


def systems(format: MessageFormat, body: JsonObject) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the roles that speak for the application: those at the beginning, and those later on.

    ``instructions`` and ``system`` are at the beginning as well. The later ones are given once
    each, in the order of the alphabet.
    """
    messages = body[_STYLES[format.name].field]
    if not isinstance(messages, list):
        messages = []
    lead = leading(messages)
    first = ["system"] if body.get("instructions" if format is RESPONSES else "system") else []
    if format is CHAT:
        first = []
    first += [message["role"] for message in messages[:lead]]
    late = {message["role"] for message in messages[lead:] if is_system(message)}
    return tuple(first), tuple(sorted(late))


def as_system(format: MessageFormat, body: JsonObject) -> None:
    """Let whoever is called ``developer`` be called ``system``."""
    field = _STYLES[format.name].field
    if isinstance(messages := body[field], list):
        body[field] = [
            {**message, "role": "system"} if is_system(message) else message for message in messages
        ]


def into_users_words(format: MessageFormat, body: JsonObject) -> None:
    """Make system messages that are not at the beginning part of the users' messages."""
    style = _STYLES[format.name]
    messages = body[style.field]
    lead = leading(messages)
    body[style.field] = [*messages[:lead], *_Writer(style).written(messages[lead:])]


class _Writer:
    """A writer of a conversation, one message after the other.

    However much is added to a message, it is put together once: clients choose how much that is.
    """

    def __init__(self, style: _ApiStyle) -> None:
        self._style = style
        self._out: list[JsonObject] = []
        self._contents: list[Any] = []  # what the last message is to hold
        self._waiting: list[Any] = []  # what is said between a call and its result
        self._open = False  # the last message is a user's, and holds what an application said

    def written(self, messages: list[JsonObject]) -> list[JsonObject]:
        others = [message for message in messages if not is_system(message)]
        following = iter([*others[1:], None])
        upcoming: JsonObject | None = others[0] if others else None
        for message in messages:
            if not is_system(message):
                self._add(message)
                upcoming = next(following)
            elif self._within_calls(upcoming):
                self._waiting.append(message.get("content"))
            else:
                self._say_what_waits()
                self._say(message.get("content"))
        self._say_what_waits()
        self._complete()
        return self._out

    def _within_calls(self, upcoming: JsonObject | None) -> bool:
        """Return whether what comes next is the result of a call, or one more call
        beside the last.
        """
        if upcoming is None:
            return False
        call, result = self._style.of_tools(upcoming)
        return result or (call and bool(self._out) and self._style.of_tools(self._out[-1])[0])

    def _add(self, message: JsonObject) -> None:
        result = self._style.of_tools(message)[1]
        if not self._within_calls(message):
            self._say_what_waits()
        if self._open and message.get("role") == "user":
            self._contents.append(message.get("content"))
        else:
            self._begin(message)
            self._open = False
        if result and message.get("role") == "user":  # Anthropic's: more words may follow in it
            self._say_what_waits()

    def _say_what_waits(self) -> None:
        waiting, self._waiting = self._waiting, []
        for content in waiting:
            self._say(content)

    def _say(self, content: Any) -> None:
        if not content:
            return
        if self._out and self._out[-1].get("role") == "user":
            self._contents.append(content)
        else:
            self._begin({"role": "user", "content": self._parts_of(content)})
        self._open = True

    def _begin(self, message: JsonObject) -> None:
        self._complete()
        self._out.append(message)
        self._contents = [message.get("content")]

    def _complete(self) -> None:
        """Complete the last message."""
        if len(self._contents) > 1:
            self._out[-1] = {**self._out[-1], "content": self._joined(self._contents)}

    def _joined(self, contents: list[Any]) -> Any:
        """Return the contents one after the other, with blank lines between texts.

        The result for the first contents is always the beginning of the result for more.
        """
        contents = [content for content in contents if content]
        texts = list(itertools.takewhile(lambda content: isinstance(content, str), contents))
        text, others = _BLANK_LINE.join(texts), contents[len(texts) :]
        if not others:
            return text
        if not text and len(others) == 1:
            return self._parts_of(others[0])
        parts = self._listed(text)
        for content in others:
            more = self._listed(content)
            if more and parts and _is_text(parts[-1]):
                parts.append(self._part(_BLANK_LINE))
            parts += more
        return parts

    def _listed(self, content: Any) -> list[Any]:
        if isinstance(content, str):
            return [self._part(content)] if content else []
        parts = self._parts_of(content)
        return parts if isinstance(parts, list) else [parts]

    def _parts_of(self, content: Any) -> Any:
        """Return a content in which texts are a user's: parts of Responses say whose they are."""
        if not isinstance(content, list):
            return content
        return [{**part, "type": self._style.text} if _is_text(part) else part for part in content]

    def _part(self, text: str) -> JsonObject:
        return {"type": self._style.text, "text": text}


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and str(part.get("type")).endswith("text")
