"""The schema of a personality in models.json, and the base of all schemas of that file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    StrictInt,
)
from pydantic.alias_generators import to_camel

from gateway.models.personalities import Personality
from gateway.validation import Schema, annotated, key, schema_of

PERSONALITY: Final = "a system prompt, or an object: prompt, setParams, stripParams, reasoning, ..."
_REASONING: Final = "true, false (or off), low, medium, high, or a number of tokens"

_ROUTES: Final = "it chooses where the request goes"
_ASKS: Final = "it is what a client asks"
#: Fields of bodies that models.json may neither set nor strip, and why.
RESERVED: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(("model", "personality"), _ROUTES),
        **dict.fromkeys(("messages", "input", "prompt", "content", "tokens"), _ASKS),
        **dict.fromkeys(("query", "documents", "texts", "input_prefix", "input_suffix"), _ASKS),
        "stream": "its client reads a stream, or an answer in one piece, as it asked for",
    }
)
#: Fields that may be stripped, but not set, and why.
_NOT_SET: Final[Mapping[str, str]] = MappingProxyType(
    {
        "id_slot": "the gateway chooses the slot",
        **dict.fromkeys(("previous_response_id", "conversation"), "each request has its own"),
    }
)
_LIKE: Final = "like temperature, max_tokens, seed"
SET_PARAMS: Final = f"an object of request fields {_LIKE}, put over what clients send"
STRIP_PARAMS: Final = f"a list of request fields {_LIKE}, that clients may not set"


class Strict(Schema):
    """A base of schemas whose names are camelCase, unknown ones an error, values frozen."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True
    )


def _strippable(value: str) -> str:
    if (why := RESERVED.get(value)) is not None:
        raise ValueError(f"{value} cannot be set or stripped: {why}")
    return value


def _settable(value: str) -> str:
    if (why := _NOT_SET.get(value)) is not None:
        raise ValueError(f"{value} cannot be set: {why}")
    return _strippable(value)


def is_json(value: Any) -> Any:
    """Return ``value`` if JSON can say it. Raises ``ValueError`` for what only Python's reader
    takes.
    """
    for one in _numbers(value):
        if not math.isfinite(one):
            raise ValueError(f"{one} is no number that JSON has")
    return value


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _numbers(one)


def as_tuple(value: object) -> object:
    """Return one text as a list of one."""
    return (value,) if isinstance(value, str) else value


#: One text, or a list of texts.
ONE_OR_MORE: Final = BeforeValidator(as_tuple, json_schema_input_type=str | list[str])
#: Fields that override those of a client's body, and fields that clients may not set.
SetParams = dict[Annotated[str, AfterValidator(_settable)], JsonValue]
StripParams = Annotated[tuple[Annotated[str, AfterValidator(_strippable)], ...], ONE_OR_MORE]


def _one_kind(value: object) -> object:
    fits = (
        value is None
        or isinstance(value, bool)
        or value
        in (
            "off",
            "low",
            "medium",
            "high",
        )
    )
    if not fits and not (isinstance(value, int) and 0 <= value < 2**31):
        raise ValueError(f"must be {_REASONING}")
    return value


_Reasoning = Annotated[
    StrictBool
    | Annotated[StrictInt, Field(ge=0, le=2**31 - 1)]
    | Literal["off", "low", "medium", "high"]
    | None,
    BeforeValidator(_one_kind),
]


def _off_is_false(value: object) -> object:
    return False if value == "off" else value


def _functions(value: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    names: set[str] = set()
    for tool in value:
        function = tool.get("function")
        if tool.get("type") != "function" or not isinstance(function, dict):
            raise ValueError('each must be {"type": "function", "function": {...}}')
        if not isinstance(function.get("name"), str) or not function["name"]:
            raise ValueError("each function needs a name")
        if not isinstance(function.get("parameters", {}), dict):
            raise ValueError(f"the parameters of {function['name']} must be a JSON Schema")
        if function["name"] in names:
            raise ValueError(f"there are two with the name {function['name']}")
        names.add(function["name"])
    return value


_OBJECT = schema_of(
    Personality,
    Strict,
    prompt=key(str | None, "a text, the system prompt"),
    set_params=key(SetParams, SET_PARAMS, is_json),
    strip_params=key(StripParams, STRIP_PARAMS),
    reasoning=key(_Reasoning, _REASONING, _off_is_false),
    template_args=key(
        dict[str, JsonValue], "an object: variable of the chat template -> value", is_json
    ),
    tools=key(
        tuple[dict[str, JsonValue], ...],
        'a list of tools: {"type": "function", "function": {"name": ...}}',
        is_json,
        _functions,
    ),
    description=key(str | None, "a text"),
    unlisted=key(bool, "true or false"),
)


def _read(value: object) -> object:
    if isinstance(value, str):
        return {"prompt": value}
    if not isinstance(value, dict):
        raise ValueError(f"must be {PERSONALITY}")
    return value


_read_any = BeforeValidator(_read, json_schema_input_type=str | _OBJECT)
#: Personalities by their names.
PERSONALITIES: Final[Any] = dict[str, annotated(_OBJECT, _read_any)]  # type: ignore[misc]
