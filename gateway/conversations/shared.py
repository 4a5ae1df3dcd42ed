"""The beginning of a prompt that conversations have in common: it may be computed once. Pure.

A personality's text, under template arguments of which there are few, is the gateway's own: nothing
of it comes from a client. So all keys share it, which tells nobody what another one asked, only
that somebody used a personality. What else may be shared is told by
:mod:`gateway.conversations.opening`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson

#: The owner of what all keys share; no key has such an id.
SHARED: Final = "*"
#: Where each format has its system prompt, if that is no message.
SYSTEM_FIELDS: Final = {"anthropic": "system", "responses": "instructions"}
#: What is said of how hard a model shall think.
EFFORTS: Final = frozenset({"none", "minimal", "low", "medium", "high"})
#: How Anthropic's API calls what OpenAI's calls otherwise.
_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
_BLANK_LINE: Final = "\n\n"


class TemplateArguments(NamedTuple):
    """What the chat template is told besides the messages and the tools.

    ``written``: what an operator wrote for it, other than ``thinking``, see :func:`as_written`.
    """

    thinking: bool | None = None
    effort: str | None = None
    choice: str | None = None
    parallel: bool | None = None
    written: str | None = None

    def fields(self) -> dict[str, Any]:
        """Return them as fields of a chat request."""
        made: dict[str, Any] = {}
        if self.thinking is not None:
            made["chat_template_kwargs"] = {"enable_thinking": self.thinking}
        if self.written is not None:
            made["chat_template_kwargs"] = orjson.loads(self.written)
        if self.effort is not None:
            made["reasoning_effort"] = self.effort
        if self.choice is not None:
            made["tool_choice"] = self.choice
        if self.parallel is not None:
            made["parallel_tool_calls"] = self.parallel
        return made

    @property
    def told(self) -> tuple[object, ...]:
        """Return what stands for them in links: no more than what is in most of them."""
        return (*self,) if self.written is not None else self[:4]


_NOTHING: Final = TemplateArguments()


class SharedPrefix(NamedTuple):
    """A prompt's beginning: a system text, and what the template is told besides.

    ``tools``: JSON, a list of the functions as OpenAI's chat completions have them.
    """

    text: str
    arguments: TemplateArguments = _NOTHING
    tools: bytes = b""

    def chat(self, question: str) -> dict[str, Any]:
        """Return a chat request that begins with it."""
        system = [{"role": "system", "content": self.text}] if self.text else []
        asked = {"messages": [*system, {"role": "user", "content": question}]}
        if self.tools:
            functions = orjson.loads(self.tools)
            asked["tools"] = [{"type": "function", "function": each} for each in functions]
        return {**asked, **self.arguments.fields()}


def shared_prefix(
    body: Mapping[str, Any],
    format: str,
    before: Mapping[str, Any],
    text: str | None,
    written: str | None = None,
) -> SharedPrefix | None:
    """Return what a prompt begins with that every key may share, if it does.

    ``text`` is the personality's; ``before``: what of ``body`` becomes part of the prompt besides
    the messages; ``written``: see :func:`template_arguments`.
    """
    if not text or "tools" in before or not _begins(system_text(body, format), text):
        return None
    arguments = template_arguments(before, format, written)
    if arguments is None:
        return None
    if arguments.choice is not None or arguments.parallel is not None:  # those are of tools
        arguments = arguments._replace(choice=None, parallel=None)
    return SharedPrefix(text, arguments)


def as_written(arguments: Any) -> str | None:
    """Return the template arguments of an operator as text, to be compared with; ``None`` where
    JSON can't be written of them.
    """
    try:
        return orjson.dumps(arguments, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:  # an integer over 64 bits
        return None


def template_arguments(
    before: Mapping[str, Any], format: str, written: str | None = None
) -> TemplateArguments | None:
    """Return what of ``before`` is for the template; ``None`` if that is anything unusual, in which
    a client may have put something of its own.

    ``written``: what an operator has put there, as :func:`as_written` returns it.
    """
    if not before:
        return _NOTHING
    made: dict[str, Any] = {}
    for name, value in before.items():
        if name in ("tools", SYSTEM_FIELDS.get(format)):
            continue
        if name == "chat_template_kwargs" and _is_thinking(value):
            made["thinking"] = value["enable_thinking"]
        elif name == "chat_template_kwargs" and written and as_written(value) == written:
            made["written"] = written
        elif name in ("reasoning_effort", "reasoning") and (effort := _effort(name, value)):
            made["effort"] = effort
        elif name == "tool_choice" and (choice := _choice(value)) is not None:
            made["choice"] = choice
        elif name == "parallel_tool_calls" and type(value) is bool:
            made["parallel"] = value
        else:
            return None
    if "written" in made and orjson.loads(made["written"]).get("reasoning_effort") == made.get(
        "effort"
    ):
        made.pop("effort", None)  # which Anthropic's API doesn't say beside it
    return TemplateArguments(**made)


def _choice(value: Any) -> str | None:
    if isinstance(value, dict) and [*value] == ["type"] and isinstance(value["type"], str):
        return _CHOICES.get(value["type"])
    return value if value in _CHOICES.values() else None


def _effort(name: str, value: Any) -> str | None:
    """Return how hard to think, which Responses say in an object; ``None``: not only that."""
    if name == "reasoning":
        value = value["effort"] if isinstance(value, dict) and [*value] == ["effort"] else None
    return value if isinstance(value, str) and value in EFFORTS else None


def _is_thinking(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and [*value] == ["enable_thinking"]
        and (type(value["enable_thinking"]) is bool)
    )


def system_text(body: Mapping[str, Any], format: str) -> Any:
    """Return the text that a prompt begins with, ``None`` where that is no plain text."""
    if (field := SYSTEM_FIELDS.get(format)) is not None:
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
