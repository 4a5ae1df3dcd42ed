"""What a wrong value in a file becomes: a :class:`Problem` that names file, key, value, allowed.

Configuration and models.json share it, so that ``llm-gateway check`` can list every problem of
both at once. Also the two units people write in those files: sizes and durations.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, Final, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from gateway.spelling import closest, did_you_mean

M = TypeVar("M", bound=BaseModel)

_SIZE_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
    "k": 2**10,
    "m": 2**20,
    "g": 2**30,
    "t": 2**40,
}
_TIME_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in one file, worded for the person who has to mend it."""

    file: str
    key: str
    value: str | None
    message: str
    allowed: str | None = None

    def __str__(self) -> str:
        where = "".join(f"{part}: " for part in (self.file, self.key) if part)
        got = f" (got {self.value})" if self.value is not None else ""
        allowed = f"; allowed: {self.allowed}" if self.allowed else ""
        return f"{where}{self.message}{got}{allowed}"


UNKNOWN_KEY = "unknown key"

#: What pydantic calls an error -> how a person would say it, with pydantic's numbers in it. Others
#: (those of our own validators) say it themselves.
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


class InvalidFiles(Exception):
    """A configuration or models.json with at least one problem; nothing of it is used."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def parse_duration(value: object) -> float:
    """Seconds from ``30``, ``"30s"``, ``"500ms"``, ``"5m"``, ``"12h"``, ``"30d"`` or ``"2w"``."""
    return _quantity(value, _TIME_UNITS, "a duration like 30s, 5m, 12h or 30d")


def whole_number(text: str) -> int | None:
    """The number that ``text`` is, from 0 to 2**63 - 1 (what SQLite holds); else ``None``."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        return None
    number = int(text)
    return number if number < 2**63 else None


#: Sums of a few sizes have to fit into 64 bits, which is what JSON answers can hold.
_LARGEST: Final = 2**60


def parse_size(value: object) -> int:
    """Bytes from ``1048576``, ``"64MiB"``, ``"8GB"`` or ``"8G"`` (which is 8 GiB)."""
    wanted = "a size like 64MiB or 8GB"
    size = _quantity(value, _SIZE_UNITS, wanted)
    if size >= _LARGEST:
        raise ValueError(f"must be {wanted}, and less than 1 EiB")
    return int(size)


def _quantity(value: object, units: Mapping[str, float], wanted: str) -> float:
    if isinstance(value, bool):
        raise ValueError(f"must be {wanted}")
    if isinstance(value, int | float):
        if not 0 <= value < float("inf"):  # false for NaN too
            raise ValueError(f"must be {wanted}, and not negative")
        return value
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    unit = match[2] if match else None
    if match is None or unit is None or unit.lower() not in units:
        raise ValueError(f"must be {wanted}")
    quantity = float(match[1]) * units[unit.lower()]
    if math.isinf(quantity):
        raise ValueError(f"must be {wanted}, and not infinite")
    return quantity


_DURATION_TEXT = r"^\s*\d+(\.\d+)?\s*([mM]?[sS]|[mMhHdDwW])?\s*$"
_SIZE_TEXT = r"^\s*\d+(\.\d+)?\s*([bB]|[kKmMgGtT]([iI]?[bB])?)?\s*$"
#: With what may be written for them, for the JSON Schemas.
Duration = Annotated[
    float,
    BeforeValidator(
        parse_duration,
        json_schema_input_type=Annotated[float, Field(ge=0)]
        | Annotated[str, Field(pattern=_DURATION_TEXT)],
    ),
]
Size = Annotated[
    int,
    BeforeValidator(
        parse_size,
        json_schema_input_type=Annotated[float, Field(ge=0)]
        | Annotated[str, Field(pattern=_SIZE_TEXT)],
    ),
]


def problems_of(
    *errors: ValidationError, file: str, model: type[BaseModel], prefix: tuple[str, ...] = ()
) -> list[Problem]:
    """One :class:`Problem` for each key in which pydantic found an error, the first.

    ``allowed`` is the description of the field in ``model`` (for an unknown key, the known
    ones). Values of keys that look secret are not repeated.
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
    """``data`` as a ``model`` without the keys that are wrong, and what was wrong with them.

    ``None`` if nothing is left that is right. For who lists problems: a typing error must not
    hide those of the other keys.
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
    """``data`` without the key at ``path``, or without the object that lacks it."""
    if not path or not isinstance(data, Mapping) or path[0] not in data:
        return data
    head, *tail = path
    inner = data[head]
    rest = _without(inner, tuple(tail))
    kept = {key: value for key, value in data.items() if key != head}
    return kept if rest == inner else {**kept, head: rest}


def _meant(model: type[BaseModel], location: tuple[str, ...], siblings: list[str]) -> str:
    """Where the unknown key at ``location`` belongs, or how it is spelt."""
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
    """Every key of ``model`` and of what is nested in it; the outer ones last."""
    for name, field in model.model_fields.items():
        inner = _without_none(field.annotation)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from ((field.alias or name, *path) for path in key_paths(inner))
    yield from ((name,) for name in _names(model))


#: Keys whose values are not repeated: of ``env`` any, as nobody knows which of them are secret.
_SECRET_KEY = re.compile(
    r"passphrase|password|secret|token|api_?key|(^|\.)key$|\.env(\.|$)", re.IGNORECASE
)
#: Of lists of arguments where one argument should be, each may be one.
_ARGUMENTS = re.compile(r"\.extra_?args(\.|$)", re.IGNORECASE)
_SECRET_ARGUMENT = re.compile(r"(--?[\w-]*(?:key|token|pass)[\w-]*=)[^'\"]+", re.IGNORECASE)


def shown(key: str, value: object) -> str:
    """``value`` for an error message: short, and hidden where the key names a secret."""
    if _SECRET_KEY.search(key) or (isinstance(value, list | dict) and _ARGUMENTS.search(key)):
        return "a hidden value"
    text = re.sub(r"//[^/@\s]*@", "//...@", repr(value))  # a user and password in a url
    # An argument that has one behind its name.
    text = _SECRET_ARGUMENT.sub(r"\1...", text)
    return text if len(text) <= 80 else f"{text[:77]}..."


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
    """Names allowed beside the last key of ``path``, and the description of that key's field."""
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
    """``X`` of ``X | None``; anything else as it is."""
    branches = get_args(annotation)
    inner = [branch for branch in branches if branch is not type(None)]
    return inner[0] if len(inner) == 1 < len(branches) else annotation


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """``object_pairs_hook`` that refuses a JSON key given twice: one of them would be lost."""
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise ValueError(f"the key {key[:100]!r} is given twice in one object")
        seen[key] = value
    return seen
