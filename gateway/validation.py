"""Validation by pydantic of the files that people write: gateway.yaml and models.json.

A :class:`Schema` says what may stand in an object of such a file; :func:`made_of` makes the plain,
frozen dataclass of it that the program reads, once. What is wrong becomes a
:class:`gateway.problems.Problem` for each key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from dataclasses import Field as DataclassField
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, TypeVar, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    create_model,
)

from gateway.problems import Problem, shown
from gateway.quantities import DURATION_TEXT, SIZE_TEXT, parse_duration, parse_size
from gateway.secret import Secret
from gateway.spelling import closest, did_you_mean

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

UNKNOWN_KEY: Final = "unknown key"

M = TypeVar("M", bound=BaseModel)

#: Type of a pydantic error -> a message for people, with placeholders for pydantic's numbers.
#: Errors of our own validators have their own messages.
_PLAINLY: Mapping[str, str] = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    "finite_number": "must be a number, and not infinite",
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("string_type", "path_type"), "must be a text"),
    "string_too_short": "must not be empty",
    **dict.fromkeys(("tuple_type", "list_type"), "must be a list"),
    **dict.fromkeys(
        ("dict_type", "mapping_type", "model_type", "model_attributes_type"),
        "must be an object: names with values",
    ),
    "greater_than": "must be over {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:.10g}",
    "literal_error": "must be {expected}",
}

#: Durations and sizes, with the texts that are allowed for them in the JSON Schemas.
Duration = Annotated[
    float,
    BeforeValidator(
        parse_duration,
        json_schema_input_type=Annotated[float, Field(ge=0)]
        | Annotated[str, Field(pattern=DURATION_TEXT)],
    ),
]
Size = Annotated[
    int,
    BeforeValidator(
        parse_size,
        json_schema_input_type=Annotated[float, Field(ge=0)]
        | Annotated[str, Field(pattern=SIZE_TEXT)],
    ),
]


class Schema(BaseModel):
    """The keys that an object of a file may have; ``makes`` is the dataclass that it becomes."""

    makes: ClassVar[type[Any]]


S = TypeVar("S", bound=Schema)


def key(kind: Any, allowed: str | None, *checks: Callable[..., Any], **bounds: Any) -> Any:
    """Return what may stand under a key: a ``kind``, for people what is ``allowed``, within
    ``bounds`` (those of pydantic's ``Field``). ``checks`` change the value, or raise ValueError.
    """
    # The bounds are those of the kind itself, not of what is read as one (a size, a duration).
    plain, *reading = get_args(kind) if get_origin(kind) is Annotated else (kind,)
    metadata = (Field(description=allowed, **bounds), *reading, *map(AfterValidator, checks))
    return annotated(plain, *metadata)


def annotated(kind: Any, *metadata: Any) -> Any:
    """Return ``Annotated`` of a type that is made at run time."""
    form: Any = Annotated  # mypy takes what stands in brackets behind it for a type
    return form[(kind, *metadata)]


def schema_of(made: type[DataclassInstance], base: type[S], **keys: Any) -> type[S]:
    """Return the schema of what becomes a ``made``: for each of its fields, in ``keys``, what may
    stand there. Its defaults are those of ``made``, so that each is written once.
    """
    schema = schema_of_all((made,), base, **keys)
    schema.makes = made
    return schema


def schema_of_all(kinds: Sequence[type[DataclassInstance]], base: type[S], **keys: Any) -> type[S]:
    """Return the schema of what becomes one of several ``kinds``. The first that has a field says
    its default.
    """
    known = {field.name: field for kind in reversed(kinds) for field in fields(kind)}
    assert keys.keys() == known.keys(), keys.keys() ^ known.keys()
    declared = {name: (kind, _default_of(known[name])) for name, kind in keys.items()}
    name, doc = kinds[0].__name__, kinds[0].__doc__
    return create_model(name, __base__=base, __doc__=doc, **declared)  # type: ignore[call-overload, no-any-return]


def _default_of(field: DataclassField[Any]) -> Any:
    if field.default_factory is not MISSING:
        return Field(default_factory=field.default_factory)
    return ... if field.default is MISSING else field.default


def made_of(validated: Any) -> Any:
    """Return the plain value of what was ``validated``: a dataclass for each object with a
    schema.
    """
    if isinstance(validated, Schema):
        return validated.makes(**{name: made_of(value) for name, value in validated})
    if isinstance(validated, SecretStr):
        return Secret(validated.get_secret_value())
    if isinstance(validated, tuple):
        return tuple(map(made_of, validated))
    if isinstance(validated, dict):
        return {key: made_of(value) for key, value in validated.items()}
    return validated


def problems_of(
    *errors: ValidationError, file: str, model: type[BaseModel], prefix: tuple[str, ...] = ()
) -> list[Problem]:
    """Return one :class:`Problem`, the first, for each key in which pydantic found an error.

    ``allowed`` is the description of the field in ``model`` (for an unknown key, the known ones).
    Values of keys that look secret are not repeated.
    """
    found: dict[str, Problem] = {}
    for item in chain.from_iterable(error.errors(include_url=False) for error in errors):
        location = _key_path(item["loc"])
        key = ".".join((*prefix, *location))
        owner, field = _describe(model, location)
        plainly = _PLAINLY.get(item["type"], "").format_map(item.get("ctx", {}))
        message, allowed = plainly or item["msg"].removeprefix("Value error, "), field
        if item["type"] == "extra_forbidden":
            message = f"{UNKNOWN_KEY}{_meant(model, location, owner)}"
            allowed = ", ".join(sorted(owner))
        elif item["type"] == "missing":
            message = "is missing"
        value = None if item["type"] == "missing" else shown(key, item["input"])
        if item["type"] == "extra_forbidden" and isinstance(item["input"], str | list | dict):
            value = None if item["input"] else value  # it may be a secret of a key misspelt
        # A union reports each of its branches, and what was taken out is missing afterwards: one
        # problem a key is what a person can use.
        found.setdefault(key, Problem(file, key, value, message, allowed))
    return list(found.values())


def validate_partly(
    model: type[M], data: Mapping[str, Any]
) -> tuple[M | None, list[ValidationError]]:
    """Return ``data`` as a ``model`` without the wrong keys, and what was wrong with them.

    ``None`` if nothing right is left. For lists of problems: a typing error must not hide those of
    the other keys.
    """
    errors: list[ValidationError] = []
    while True:
        try:
            return model.model_validate(data), errors
        except ValidationError as error:
            errors.append(error)
            less: Any = data
            for item in error.errors(include_url=False):
                less = _without(less, _key_path(item["loc"]))
            if less == data:
                return None, errors
            data = less


def _without(data: Any, path: tuple[str, ...]) -> Any:
    """Return ``data`` without the key at ``path``, or without the object that lacks it."""
    if not path or not isinstance(data, Mapping) or path[0] not in data:
        return data
    head, *tail = path
    inner = data[head]
    rest = _without(inner, tuple(tail))
    kept = {key: value for key, value in data.items() if key != head}
    return kept if rest == inner else {**kept, head: rest}


def _meant(model: type[BaseModel], location: tuple[str, ...], siblings: list[str]) -> str:
    """Return where the unknown key at ``location`` belongs, or how it is spelt."""
    wrong = location[-1]
    everywhere = {path[-1].casefold(): path for path in key_paths(model)}
    home = everywhere.get(wrong.casefold())
    if home is not None and home[-1] not in siblings:
        if len(home) > 1:
            return f", it belongs into {'.'.join(home[:-1])!r}"
        return f", it belongs beside {'.'.join(location[:-1])!r}, not into it"
    if found := did_you_mean(wrong, siblings):
        return found
    # Perhaps one of another section, and misspelt too.
    other = closest(wrong, everywhere, alike=0.8)
    return f", did you mean {'.'.join(everywhere[other])!r}?" if other is not None else ""


def key_paths(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """Yield every key of ``model`` and of what is nested in it; the outer ones last."""
    for name, field in model.model_fields.items():
        inner = _without_none(field.annotation)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from ((field.alias or name, *path) for path in key_paths(inner))
    yield from ((name,) for name in _names(model))


def _key_path(location: tuple[int | str, ...]) -> tuple[str, ...]:
    # pydantic appends the branch of a union ("literal['auto']", "function-before[...]", "int").
    known_branches = re.compile(r"^(literal|function|constrained|list|tuple|dict|nullable)\b.*\[")
    # The last: the key itself is wrong.
    branches = {"int", "constrained-int", "float", "str", "bool", "[key]"}
    path: list[str] = []
    for part in location:
        text = str(part)
        if path and (known_branches.match(text) or text in branches):
            break
        path.append(text)
    return tuple(path)


def _describe(model: type[BaseModel], path: tuple[str, ...]) -> tuple[list[str], str | None]:
    """Return the names allowed beside the last key of ``path``, and that key's description."""
    names, description = _names(model), None
    current: type[BaseModel] | None = model
    named: type[BaseModel] | None = None  # of an object whose keys are names: what each holds
    for part in path:
        if named is not None:
            current, named = named, None
            continue
        if current is None:
            break
        names = _names(current)
        field = next(
            (f for n, f in current.model_fields.items() if part in (n, f.alias)),
            None,
        )
        description = field.description if field else None
        annotation = _without_none(field.annotation) if field else None
        current = _as_model(annotation)
        if get_origin(annotation) is dict:
            named = _as_model(get_args(annotation)[1])
    return names, description


def _as_model(annotation: Any) -> type[BaseModel] | None:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    fits = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if fits else None


def _without_none(annotation: Any) -> Any:
    """Return ``X`` of ``X | None``; anything else as it is."""
    branches = get_args(annotation)
    inner = [branch for branch in branches if branch is not type(None)]
    return inner[0] if len(inner) == 1 < len(branches) else annotation


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]
