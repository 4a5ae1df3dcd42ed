"""What a conversation with tools begins with: a system text and the tools. Pure.

Each chat template writes tools where it likes: within the system turn and behind its text (Qwen,
Hermes), before it (Mistral), or in front of the first question (Llama 3). So a text with tools is
another beginning than the same text without them. It ends where two different questions make two
different prompts; llama-server itself is asked for those, see
:mod:`gateway.conversations.prewarming`.

Whose such a beginning is: tools that an operator wrote into a personality are every key's, as its
text is. Others are a client's, and its key's alone until several keys have come with the same, see
:mod:`gateway.conversations.repeated`. With a system text of a client's own they stay that key's.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import orjson

from gateway.conversations.passing import unstamped
from gateway.conversations.shared import (
    SYSTEM_FIELDS,
    SharedPrefix,
    system_text,
    template_arguments,
)

#: Links of a chain that stand for what a conversation with tools begins with.
OPENING_LINKS: Final = 2
#: Bytes of tools, at most: they are kept in memory until they have been computed ahead.
_MOST_BYTES: Final = 2**20
_LINK: Final = 16
#: Names of the schema of a function's parameters, by format.
_PARAMETERS: Final = {"anthropic": "input_schema"}


class Written(NamedTuple):
    """What an operator wrote for a personality. ``tools``: as :func:`functions_of` returns them;
    ``arguments``: those of the template, as :func:`gateway.conversations.shared.as_written` does.
    """

    text: str | None
    tools: bytes | None = None
    arguments: str | None = None


class Opening(NamedTuple):
    """The beginning of one conversation.

    ``text_link`` stands for the text alone, ``link`` for all of it, whoever asks. ``written``: all
    of it is an operator's; ``common``: all but the tools is. ``first``: the place in the chain of
    the first question.
    """

    prefix: SharedPrefix
    text_link: bytes
    link: bytes
    written: bool
    common: bool
    first: int

    def links_of(self, owner: str) -> tuple[bytes, bytes]:
        """Return what stands for its text, and for all of it, when ``owner`` asks."""
        if self.written:
            return self.text_link, self.link
        own = _digest(self.link, owner.encode())
        return self.text_link if self.common else own, own

    @property
    def size(self) -> int:
        """Return its characters."""
        return len(self.prefix.text) + len(self.prefix.tools)


def opening_of(
    body: Mapping[str, Any], format: str, before: Mapping[str, Any], written: Written
) -> Opening | None:
    """Return what ``body`` begins with, if it has tools and nothing unusual besides.

    ``before``: what of it becomes part of the prompt besides the messages; ``written``: of the
    personality that is in it.
    """
    arguments = template_arguments(before, format, written.arguments)
    text, as_message = _text(body, format)
    if arguments is None or text is None:
        return None
    tools = functions_of(body["tools"], format)
    if not tools:
        return None
    prefix = SharedPrefix(text, arguments, tools)
    text_link = link_of_text(text)
    common = text == (written.text or "")
    return Opening(
        prefix,
        text_link,
        _digest(text_link, orjson.dumps((_digest(b"tools", tools).hex(), *arguments.told))),
        common and tools == written.tools,
        common,
        OPENING_LINKS + as_message,
    )


def link_of_text(text: str) -> bytes:
    """Return what stands for a system text that is followed, or preceded, by tools."""
    return _digest(b"with tools", text.encode("utf-8", "surrogatepass"))


def functions_of(tools: Any, format: str) -> bytes | None:
    """Return tools as JSON that is the same in every format; ``None`` where they are none, or not
    only functions.

    Whatever llama-server doesn't show to the template is left out.
    """
    if not isinstance(tools, list) or not tools:
        return None
    try:
        functions = [_function(tool, format) for tool in tools]
        written = orjson.dumps(functions)
    except (LookupError, TypeError):  # also an integer over 64 bits
        return None
    return written if len(written) <= _MOST_BYTES else None


def _function(tool: Any, format: str) -> dict[str, Any]:
    if format == "chat":
        if tool["type"] != "function":
            raise TypeError("no function")
        tool = tool["function"]
    elif tool.get("type", "function") not in ("function", "custom"):
        raise TypeError("no function")
    made = {"name": tool["name"]}
    if (parameters := tool.get(_PARAMETERS.get(format, "parameters"))) is not None:
        made["parameters"] = parameters
    if (description := tool.get("description")) is not None:
        made["description"] = description
    return made


def _text(body: Mapping[str, Any], format: str) -> tuple[str | None, bool]:
    """Return the whole system text, and whether a message has it; ``None`` where it isn't plain."""
    if (field := SYSTEM_FIELDS.get(format)) is not None:
        found = body.get(field)
        if format == "anthropic":
            found = unstamped(found)
        if isinstance(found, list):
            return _joined(found), False
        return (found if isinstance(found, str) else None if found else ""), False
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not isinstance(messages[0], dict):
        return None, False
    if messages[0].get("role") == "user":
        return "", False
    found = system_text(body, format)
    return (found if isinstance(found, str) else None), True


def _joined(blocks: list[Any]) -> str | None:
    """Return the text of Anthropic's blocks, as llama-server puts them together."""
    texts = [block.get("text") if isinstance(block, dict) else None for block in blocks]
    plain = [text for text in texts if isinstance(text, str)]
    return "".join(plain) if len(plain) == len(blocks) else None


def _digest(link: bytes, data: bytes) -> bytes:
    return blake2b(data, digest_size=_LINK, key=link).digest()
