"""Adapts what OpenAI's API accepts, and llama-server doesn't. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FieldPlace:
    """An object of a body (or a list of such), in which a ``null`` is as good as nothing.

    But for the fields in ``kept``, where it has a meaning, and for ``text`` in a part that is one,
    which is empty then. ``inner``: the fields that hold further places. Whatever is below other
    fields is the client's own: schemas, arguments, answers of tools.
    """

    inner: Mapping[str, FieldPlace] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()


_LEAF = FieldPlace()
_PART = FieldPlace(
    dict.fromkeys(("image_url", "input_audio", "file", "source", "cache_control"), _LEAF)
)
_NAMED = FieldPlace({"function": _LEAF, "custom": _LEAF})

#: The bodies of each API, with the objects in which clients leave fields ``null`` (OpenAI
#: reference, Chat Completions and Responses; Anthropic API reference, Messages). The ``content`` of
#: a message may be ``null``.
CHAT = FieldPlace(
    {
        "messages": FieldPlace(
            {"content": _PART, "tool_calls": _NAMED, "function_call": _LEAF, "audio": _LEAF},
            kept=frozenset({"content"}),
        ),
        "tools": _NAMED,
        "tool_choice": _NAMED,
        "response_format": FieldPlace({"json_schema": _LEAF}),
        "stream_options": _LEAF,
    }
)
RESPONSES = FieldPlace(
    {
        "input": FieldPlace({"content": _PART, "summary": _PART, "output": _PART}),
        "tools": _LEAF,
        "tool_choice": _LEAF,
        "text": FieldPlace({"format": _LEAF}),
        "reasoning": _LEAF,
    }
)
ANTHROPIC = FieldPlace(
    {
        "system": _PART,
        "messages": FieldPlace(
            {"content": FieldPlace({**_PART.inner, "content": _PART})},
            kept=frozenset({"content"}),
        ),
        "tools": FieldPlace({"cache_control": _LEAF}),
        "tool_choice": _LEAF,
        "thinking": _LEAF,
        "metadata": _LEAF,
    }
)
#: Any other body: only its own fields.
OTHER = _LEAF


def drop_nulls(body: JsonObject, place: FieldPlace = OTHER) -> bool:
    """Take out what is ``null`` and might as well not be there; whether there was anything.

    Clients send it for what they were not told (litellm ``encoding_format``, the ``llm`` command a
    description, openai's own client all that an answer didn't have, when that becomes history),
    and llama-server answers that a type must be string.
    """
    dropped = False
    if None in body.values():
        for name in [name for name, value in body.items() if value is None]:
            if name in place.kept:
                continue
            del body[name]
            if name == "text" and str(body.get("type")).endswith("text"):
                body[name] = ""
            dropped = True
    for name, inner in place.inner.items():
        value = body.get(name)
        for item in value if value.__class__ is list else (value,):
            if item.__class__ is dict:
                dropped |= drop_nulls(item, inner)
    return dropped
