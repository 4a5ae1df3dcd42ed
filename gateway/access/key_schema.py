"""The schema of a key: each of its fields, declared once.

From it come what HTTP takes and shows (:func:`fields_in`, :func:`shown`), the OpenAPI document
(:func:`body_schema`, :func:`answer_schema`), the options of ``llm-gateway keys create`` and the
help of its ``--json`` (:mod:`gateway.cli.key_options`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from gateway.access.key_values import (
    TIME,
    TIME_OR_NULL,
    LimitsOrNull,
    NameOrNull,
    NamesOrAll,
    Schema,
    Text,
    TimeToCome,
    TrueOrFalse,
    ValueKind,
    time_text,
)
from gateway.access.rate_limits import LIMIT_NAMES
from gateway.errors import BadRequest

if TYPE_CHECKING:  # SQLAlchemy comes with it: see gateway.access.store
    from gateway.access.store import KeyRecord


@dataclass(frozen=True, slots=True)
class WrittenField:
    """A field that clients write. ``name``: in JSON; ``kept_as``: in a :class:`KeyRecord`."""

    name: str
    kept_as: str
    about: str
    kind: ValueKind
    option: str  # the help of the option of `keys create`; "" where it has the words of `about`
    metavar: str = ""

    @property
    def answer(self) -> Schema:
        """The JSON Schema of the value as it is shown."""
        return self.kind.shown

    def of(self, record: KeyRecord) -> Any:
        """Return what is shown of ``record``."""
        return self.kind.show(getattr(record, self.kept_as))


@dataclass(frozen=True, slots=True)
class ShownField:
    """A field that is only shown."""

    name: str
    about: str
    answer: Schema
    of: Callable[[KeyRecord], Any]


def state_of(record: KeyRecord, now: datetime) -> str:
    """Return ``ok``, ``expired`` or ``revoked``."""
    if record.revoked is not None:
        return "revoked"
    return "expired" if record.expires is not None and record.expires <= now else "ok"


#: All fields of a key, in the order in which they are shown.
FIELDS: Final[tuple[WrittenField | ShownField, ...]] = (
    ShownField("id", "like k_ab12cd34", {"type": "string"}, lambda record: record.id),
    WrittenField(
        "name",
        "name",
        "who or what it is for",
        Text("name", 100, "a key needs a name of {least} to {most} visible characters", least=1),
        option="",
        metavar="NAME",
    ),
    WrittenField(
        "description",
        "description",
        "more about it",
        Text("description", 1000, "a description is text of up to {most} characters", line=False),
        option="",
        metavar="DESCRIPTION",
    ),
    WrittenField(
        "admin",
        "admin",
        "whether it may unload models, manage keys and see everything",
        TrueOrFalse("admin"),
        option="may unload models, manage keys and see everything",
    ),
    WrittenField(
        "metrics",
        "metrics",
        "whether it may read /metrics and do nothing else, unless it is an admin key",
        TrueOrFalse("metrics"),
        option="may read /metrics, for Prometheus, and nothing else",
    ),
    ShownField(
        "state",
        "ok, expired or revoked",
        {"type": "string", "enum": ["ok", "expired", "revoked"]},
        lambda record: state_of(record, datetime.now(UTC)),
    ),
    ShownField("created", "when it was made", TIME, lambda record: time_text(record.created)),
    WrittenField(
        "expires",
        "expires",
        "when it ends; null: never",
        TimeToCome("expires"),
        option="ends after this time, like 30d or 12h",
        metavar="TIME",
    ),
    ShownField(
        "revoked",
        "when it was revoked; or null",
        TIME_OR_NULL,
        lambda record: time_text(record.revoked),
    ),
    ShownField(
        "lastActivity",
        "when it was last used, to the minute or so; null: never",
        TIME_OR_NULL,
        lambda record: time_text(record.last_activity),
    ),
    WrittenField(
        "models",
        "models",
        "list of the models it may use; null: all",
        NamesOrAll("models", none=False),
        option="may use only these models",
        metavar="A,B",
    ),
    WrittenField(
        "personalities",
        "personalities",
        "list of the personalities it may use; null: all",
        NamesOrAll("personalities"),
        option="may use only these personalities, or none",
        metavar="A,B",
    ),
    WrittenField(
        "defaultPersonality",
        "default_personality",
        "that of requests that name none; or null",
        NameOrNull("defaultPersonality", "the default personality"),
        option="of every request that names none and whose model has it",
        metavar="NAME",
    ),
    WrittenField(
        "limits",
        "limits",
        f"object: {', '.join(LIMIT_NAMES)}, as far as set; or null",
        LimitsOrNull("limits"),
        option="",  # an option for each of them
    ),
    ShownField(
        "imported",
        "whether it comes from the old system",
        {"type": "boolean"},
        lambda record: record.imported,
    ),
)
#: The fields that clients may write, by their names in JSON.
WRITTEN: Final[Mapping[str, WrittenField]] = {
    field.name: field for field in FIELDS if isinstance(field, WrittenField)
}
_KEPT: Final = {field.kept_as: field for field in WRITTEN.values()}


def shown(record: KeyRecord) -> dict[str, Any]:
    """Return a key as JSON: everything but its hash. Times are UTC."""
    return {field.name: field.of(record) for field in FIELDS}


def fields_in(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a JSON object of :data:`WRITTEN` fields says, by the names of a record.

    Raises :class:`BadRequest` for what cannot be read; :func:`checked` looks at the rest.
    """
    return {WRITTEN[name].kept_as: WRITTEN[name].kind.read(value) for name, value in body.items()}


def checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``fields`` of a :class:`KeyRecord` as they are kept, whatever came in.

    Raises :class:`BadRequest` with what is wrong and what is allowed.
    """
    return {name: _KEPT[name].kind.check(value) for name, value in fields.items()}


def check_default(personalities: tuple[str, ...] | None, default: str | None) -> None:
    """Raise :class:`BadRequest` where a key's default personality is one it may not use."""
    if default is not None and personalities is not None and default not in personalities:
        raise BadRequest(
            f"the default personality {default[:200]!r} is not among those that the key may use: "
            f"{', '.join(map(repr, personalities)) or 'none'}",
            param="defaultPersonality",
        )


def body_schema() -> dict[str, Schema]:
    """Return the JSON Schemas of the fields that clients write, by their names."""
    return {name: field.kind.taken for name, field in WRITTEN.items()}


def answer_schema() -> Schema:
    """Return the JSON Schema of a key as it is shown."""
    return {
        "type": "object",
        "properties": {
            field.name: {**field.answer, "description": field.about} for field in FIELDS
        },
        "required": [field.name for field in FIELDS],
    }
