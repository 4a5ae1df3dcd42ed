"""The schema of a personality in models.json, and the base of all schemas of that file."""

from __future__ import annotations

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
_REASONING: Final = "true, false, low, medium, high, or a number of tokens"


class Strict(Schema):
    """A base of schemas whose names are camelCase, unknown ones an error, values frozen."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True
    )


def _settable(value: str) -> str:
    if value in ("model", "personality"):
        raise ValueError(f"{value} cannot be set or stripped: it chooses where the request goes")
    return value


def as_tuple(value: object) -> object:
    """Return one text as a list of one."""
    return (value,) if isinstance(value, str) else value


#: One text, or a list of texts.
ONE_OR_MORE: Final = BeforeValidator(as_tuple, json_schema_input_type=str | list[str])
#: Fields that override those of a client's body, and fields that clients may not set.
SetParams = dict[Annotated[str, AfterValidator(_settable)], JsonValue]
StripParams = Annotated[tuple[Annotated[str, AfterValidator(_settable)], ...], ONE_OR_MORE]


def _one_kind(value: object) -> object:
    fits = value is None or isinstance(value, bool) or value in ("low", "medium", "high")
    if not fits and not (isinstance(value, int) and 0 <= value < 2**31):
        raise ValueError(f"must be {_REASONING}")
    return value


_Reasoning = Annotated[
    StrictBool
    | Annotated[StrictInt, Field(ge=0, le=2**31 - 1)]
    | Literal["low", "medium", "high"]
    | None,
    BeforeValidator(_one_kind),
]


def _functions(value: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    for tool in value:
        function = tool.get("function")
        if tool.get("type") != "function" or not isinstance(function, dict):
            raise ValueError('each must be {"type": "function", "function": {...}}')
        if not isinstance(function.get("name"), str) or not function["name"]:
            raise ValueError("each function needs a name")
        if not isinstance(function.get("parameters", {}), dict):
            raise ValueError(f"the parameters of {function['name']} must be a JSON Schema")
    return value


_OBJECT = schema_of(
    Personality,
    Strict,
    prompt=key(str | None, "a text, the system prompt"),
    set_params=key(SetParams, "an object of body fields, put over what clients send"),
    strip_params=key(StripParams, "a list of body fields that clients may not set"),
    reasoning=key(_Reasoning, _REASONING),
    template_args=key(dict[str, JsonValue], "an object: variable of the chat template -> value"),
    tools=key(
        tuple[dict[str, JsonValue], ...],
        'a list of tools: {"type": "function", "function": {"name": ...}}',
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
