"""Fields of requests that mean the same, and their names in each API. Pure.

Seen in llama.cpp's ``tools/server``, builds b10434 to b11549 (``server-schema.cpp``, which takes
the first of several names that is given; ``server-chat.cpp``, which translates Responses and
Anthropic's Messages into chat completions and keeps of the latter only what it knows), in vLLM's
OpenAI server, OpenAI's and Anthropic's references. A new build's new name belongs in here.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from gateway.errors import BadRequest
from gateway.plurals import counted

#: The place of a field in a body: its name, or the path of names to it.
Place = str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Field:
    """A field that a request can set, by all its names, of which the first given wins.

    ``read``: the names that a message format (:class:`gateway.proxy.personality.MessageFormat`,
    by its name) knows, where those are not all; the last one is its own API's. ``excludes``: what
    says another thing that can't hold together with this one.
    """

    names: tuple[Place, ...]
    read: Mapping[str, tuple[Place, ...]] = field(default_factory=dict)
    excludes: tuple[Place, ...] = ()


#: The limit of tokens in an answer.
LENGTH: Final = Field(
    ("n_predict", "max_completion_tokens", "max_output_tokens", "max_tokens"),
    {
        "chat": ("n_predict", "max_completion_tokens", "max_tokens"),
        "completion": ("n_predict", "max_completion_tokens", "max_tokens"),
        "none": ("n_predict", "max_completion_tokens", "max_tokens"),
        # `max_output_tokens` takes the place of `max_tokens`, behind the other two.
        "responses": ("n_predict", "max_completion_tokens", "max_tokens", "max_output_tokens"),
        "anthropic": ("max_tokens",),
    },
)
STOP: Final = Field(
    ("stop", "stop_sequences"),
    {
        **dict.fromkeys(("chat", "completion", "none", "responses"), ("stop",)),
        "anthropic": ("stop_sequences",),
    },
)
_SCHEMAS: Final[tuple[Place, ...]] = (
    "json_schema",
    "response_format",
    "output_format",
    ("text", "format"),
    ("output_config", "format"),
)

FIELDS: Final = (
    LENGTH,
    STOP,
    Field(("n_cmpl", "n", "best_of")),
    Field(("n_probs", "logprobs", "top_logprobs")),
    Field(("repeat_penalty", "repetition_penalty")),
    Field(("typical_p", "typ_p")),
    Field(_SCHEMAS, excludes=("grammar",)),
    Field(("grammar",), excludes=_SCHEMAS),
    Field(
        ("reasoning_budget_tokens", "thinking_budget_tokens", ("thinking", "budget_tokens")),
    ),
    Field(("reasoning_effort", ("reasoning", "effort"), ("output_config", "effort"))),
)

_BY_NAME: Final = {name: one for one in FIELDS for name in one.names}


#: Message formats (:class:`gateway.proxy.personality.MessageFormat`), by their names.
KINDS: Final = ("chat", "responses", "anthropic", "completion", "none")


class Shaping(NamedTuple):
    """What models.json does to the bodies of one message format."""

    strip: tuple[Place, ...]
    fixed: Mapping[str, Any]


def shapings(
    strip: Iterable[str],
    fixed: Mapping[str, Any],
    over: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Mapping[str, Shaping] | None:
    """Return what ``stripParams`` and ``setParams`` do to a body, by the name of its message
    format.

    ``over``: by that name, what a personality sets, which wins over ``fixed``.

    Whatever says the same as a field of theirs under another name is taken out, so that a client
    can't say it that way; and what is set, is set under a name that the format knows. ``None``:
    they do nothing.
    """
    strip = tuple(strip)
    if not (strip or fixed or any(over.values())):
        return None
    return MappingProxyType(
        {kind: _shaping(kind, strip, _said_over(fixed, over.get(kind, {}))) for kind in KINDS}
    )


def same_field(*names: str) -> set[Place]:
    """Return all names of the fields with these ``names``."""
    return {other for name in names if name in _BY_NAME for other in _BY_NAME[name].names}


def _said_over(fixed: Mapping[str, Any], over: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return ``fixed`` with ``over`` merged into it, but for what that says by another name."""
    gone = same_field(*over) - over.keys()
    gone |= {other for name in over if name in _BY_NAME for other in _BY_NAME[name].excludes}
    return _merged(without(fixed, gone), over)


def without(fixed: Mapping[str, Any], places: Iterable[Place]) -> dict[str, Any]:
    """Return a copy of ``fixed`` without what stands at ``places``."""
    left = copy.deepcopy(dict(fixed))
    for place in places:
        take_out(left, place)
    return left


def _merged(fixed: Mapping[str, Any], over: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return ``fixed`` with ``over`` merged into it, including nested objects."""
    both = dict(fixed)
    for name, value in over.items():
        before = both.get(name)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            value = _merged(before, value)
        both[name] = value
    return both


def _shaping(kind: str, strip: tuple[str, ...], fixed: Mapping[str, Any]) -> Shaping:
    said = {_name_in(kind, name, fixed): value for name, value in fixed.items()}
    gone: dict[Place, None] = {}
    for name in strip:
        gone.update(dict.fromkeys(_BY_NAME[name].names if name in _BY_NAME else (name,)))
    for name in said:
        if (one := _BY_NAME.get(name)) is not None:
            gone.update(dict.fromkeys((*one.names, *one.excludes)))
    # What is set takes the client's place, or an object is merged into the client's.
    return Shaping(tuple(place for place in gone if place not in said or place in strip), said)


def _name_in(kind: str, name: str, fixed: Mapping[str, Any]) -> str:
    """Return what ``kind`` calls the field ``name``, unless that is set as well."""
    one = _BY_NAME.get(name)
    read = one.read.get(kind) if one is not None else None
    if read is None or name in read:
        return name
    own = read[-1]
    assert isinstance(own, str)
    return name if own in fixed else own


def take_out(body: dict[str, Any], place: Place) -> None:
    """Take what stands at ``place`` out of ``body``, and the object that held nothing else."""
    if isinstance(place, str):
        body.pop(place, None)
        return
    outer, inner = place
    value = body.get(outer)
    if isinstance(value, dict) and inner in value:
        del value[inner]
        if not value:
            del body[outer]


def limit_length(body: dict[str, Any], kind: str, limit: int, whose: str) -> bool:
    """Bound each answer to ``limit`` tokens, where ``body`` doesn't itself; whether it was changed.

    ``whose`` limit it is, for the error.

    A negative number bounds nothing (-1 is llama-server's word for that). Nor does a name that
    only llama-server knows, as the model may be elsewhere: the API's own name says it too, then.

    Raises :class:`BadRequest` for what asks for more, or is no number.
    """
    changed = False
    least: float = limit
    for name in LENGTH.names:
        if name not in body:
            continue
        value = body[name]
        if value.__class__ is not int and value.__class__ is not float:
            raise BadRequest(f"`{name}` must be a number of tokens", param=str(name))
        if value > limit:
            raise BadRequest(
                f"`{name}` is {value}: an answer may have at most {counted(limit, 'token')} here "
                f"({whose})",
                code="request_limit",
                param=str(name),
            )
        if value < 0:
            del body[name]
            changed = True
        elif name in LENGTH.read[kind]:
            least = min(least, value)
    own = LENGTH.read[kind][-1]
    if own not in body and not (kind == "chat" and "max_completion_tokens" in body):
        body[own] = least  # type: ignore[index]
        return True
    return changed
