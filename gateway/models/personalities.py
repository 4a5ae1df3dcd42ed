"""A personality of models.json: a system prompt, or an object with more than that.

``{"coder": "You write code."}``, or ``{"coder": {"prompt": "You write code.", "setParams":
{"temperature": 0}, "reasoning": false}}``: a model of its own to clients, ``NAME:coder``, over the
same process. Pure.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    StrictInt,
    field_validator,
)
from pydantic.alias_generators import to_camel

PERSONALITY = "a system prompt, or an object: prompt, setParams, stripParams, reasoning, ..."
_REASONING = "true, false, low, medium, high, or a number of tokens"


class Strict(BaseModel):
    """Names are camelCase, unknown ones an error, values frozen."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True
    )


def _settable(value: str) -> str:
    if value in ("model", "personality"):
        raise ValueError(f"{value} cannot be set or stripped: it chooses where the request goes")
    return value


def as_tuple(value: object) -> object:
    """One text as a list of it."""
    return (value,) if isinstance(value, str) else value


#: What may be one text or a list of them.
ONE_OR_MORE = BeforeValidator(as_tuple, json_schema_input_type=str | list[str])
#: Fields of a body that are put over what clients send, and those that they may not set.
SetParams = dict[Annotated[str, AfterValidator(_settable)], JsonValue]
StripParams = Annotated[tuple[Annotated[str, AfterValidator(_settable)], ...], ONE_OR_MORE]


class Personality(Strict):
    """One personality. All but ``prompt`` is put into every request that it is chosen for.

    ``reasoning``: whether the model thinks before it answers, for how long (tokens), or how hard
    (OpenAI's ``reasoning_effort``). ``template_args``: variables of the chat template
    (``chat_template_kwargs`` of llama-server). ``tools``: in the shape of OpenAI's chat
    completions, for requests that bring none.
    """

    prompt: str | None = Field(None, description="a text, the system prompt")
    set_params: SetParams = Field(
        default_factory=dict, description="an object of body fields, put over what clients send"
    )
    strip_params: StripParams = Field(
        (), description="a list of body fields that clients may not set"
    )
    reasoning: (
        StrictBool
        | Annotated[StrictInt, Field(ge=0, le=2**31 - 1)]
        | Literal["low", "medium", "high"]
        | None
    ) = Field(None, description=_REASONING)
    template_args: dict[str, JsonValue] = Field(
        default_factory=dict, description="an object: variable of the chat template -> value"
    )
    tools: tuple[dict[str, JsonValue], ...] = Field(
        (), description='a list of tools: {"type": "function", "function": {"name": ...}}'
    )
    description: str | None = Field(None, description="a text")
    unlisted: bool = Field(False, description="true or false")

    @field_validator("reasoning", mode="before")
    @classmethod
    def _one_kind(cls, value: object) -> object:
        fits = value is None or isinstance(value, bool) or value in ("low", "medium", "high")
        if not fits and not (isinstance(value, int) and 0 <= value < 2**31):
            raise ValueError(f"must be {_REASONING}")
        return value

    @field_validator("tools")
    @classmethod
    def _functions(cls, value: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for tool in value:
            function = tool.get("function")
            if tool.get("type") != "function" or not isinstance(function, dict):
                raise ValueError('each must be {"type": "function", "function": {...}}')
            if not isinstance(function.get("name"), str) or not function["name"]:
                raise ValueError("each function needs a name")
            if not isinstance(function.get("parameters", {}), dict):
                raise ValueError(f"the parameters of {function['name']} must be a JSON Schema")
        return value


def _read(value: object) -> object:
    if isinstance(value, str):
        return {"prompt": value}
    if not isinstance(value, dict | Personality):
        raise ValueError(f"must be {PERSONALITY}")
    return value


#: As it stands in models.json.
AnyPersonality = Annotated[
    Personality, BeforeValidator(_read, json_schema_input_type=str | Personality)
]


class Meta(Strict):
    """What lists of models say of one, beside what is known of it."""

    display_name: str | None = Field(None, min_length=1, description="a name for people")
    unlisted: bool = Field(False, description="true or false")
    capabilities: tuple[str, ...] | None = Field(
        None, description="a list like chat, completion, embeddings, rerank, vision, audio, tools"
    )
