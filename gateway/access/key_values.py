"""The kinds of values in the fields of a key: each class says what is accepted, stored and shown.

So the JSON Schema of a field and the check of what comes in cannot differ. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from gateway.access.rate_limits import LIMIT_NAMES
from gateway.errors import BadRequest
from gateway.quantities import parse_duration

Schema = dict[str, Any]

_MAX_LIMIT: Final = 10**15  # fits wherever a number is kept, and is no limit at all
_MAX_NAMES: Final = 1000
_NAME: Final[Schema] = {"type": "string", "minLength": 1}


class ValueKind(Protocol):
    """A kind of value that a field holds. Errors are :class:`BadRequest` and name what is
    allowed.
    """

    @property
    def taken(self) -> Schema:
        """The JSON Schema of the values that clients may write."""

    @property
    def shown(self) -> Schema:
        """The JSON Schema of the values that clients are shown."""

    def read(self, value: Any) -> Any:
        """Return what a value in JSON means, not checked yet."""

    def check(self, value: Any) -> Any:
        """Return ``value`` as it is kept in a record. Raises :class:`BadRequest`."""

    def show(self, kept: Any) -> Any:
        """Return what a record keeps as it is shown in JSON."""


class _AsItIs:
    """A kind whose values are the same in JSON and in a record."""

    def read(self, value: Any) -> Any:
        return value

    def show(self, kept: Any) -> Any:
        return kept


@dataclass(frozen=True)
class Text(_AsItIs):
    """Text of ``least`` to ``most`` characters that can be shown; of one ``line``, or of several.

    ``wanted``: the error's words, in which ``{least}`` and ``{most}`` are filled in.
    """

    param: str
    most: int
    wanted: str
    least: int = 0
    line: bool = True

    @property
    def taken(self) -> Schema:
        least = {"minLength": self.least} if self.least else {}
        return {"type": "string", **least, "maxLength": self.most}

    @property
    def shown(self) -> Schema:
        return {"type": "string"}

    def check(self, value: Any) -> str:
        if not isinstance(value, str) or not self.least <= len(value) <= self.most:
            raise self._wrong()
        if self.line and value != value.strip():
            raise self._wrong()
        if not all(map(str.isprintable, [value] if self.line else value.splitlines())):
            raise self._wrong()
        return value

    def _wrong(self) -> BadRequest:
        wanted = self.wanted.format(least=self.least, most=self.most)
        return BadRequest(wanted, param=self.param)


@dataclass(frozen=True)
class TrueOrFalse(_AsItIs):
    """A boolean."""

    param: str

    @property
    def taken(self) -> Schema:
        return {"type": "boolean"}

    @property
    def shown(self) -> Schema:
        return self.taken

    def check(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise BadRequest(f"{self.param} must be true or false", param=self.param)
        return value


@dataclass(frozen=True)
class TimeToCome:
    """A time after now, or null for never: in JSON a time with its zone, or how long from now."""

    param: str

    @property
    def taken(self) -> Schema:
        return {
            "type": ["string", "number", "null"],
            "description": "a time with its zone (ISO 8601), or how long from now: `30d`",
        }

    @property
    def shown(self) -> Schema:
        return TIME_OR_NULL

    def read(self, value: Any) -> datetime | None:
        if value is None:
            return None
        if isinstance(value, str):
            try:
                moment = datetime.fromisoformat(value)
                if moment.tzinfo is not None:
                    return moment.astimezone(UTC)
            except (ValueError, OverflowError):
                pass  # a duration, perhaps
        try:
            seconds = parse_duration(value)
        except ValueError:
            raise BadRequest(
                f"{self.param} must be a duration like 30d, a time like 2030-12-31T00:00:00Z, or "
                "null for never",
                param=self.param,
            ) from None
        return time_after(seconds, self.param)

    def check(self, value: Any) -> datetime | None:
        if value is None or (isinstance(value, datetime) and value > datetime.now(UTC)):
            return value
        raise BadRequest(f"{self.param} must be a time to come", param=self.param)

    def show(self, kept: datetime | None) -> str | None:
        return time_text(kept)


def time_after(seconds: float, param: str = "expires") -> datetime:
    """Return the time in so many seconds.

    Raises :class:`BadRequest`, which names ``param``, for what is no time to come.
    """
    now = datetime.now(UTC)
    try:
        time = now + timedelta(seconds=seconds)
    except (OverflowError, ValueError):  # ValueError: not a number
        time = now
    if time <= now:
        raise BadRequest(f"{param} is too short or too long", param=param)
    return time


@dataclass(frozen=True)
class NamesOrAll(_AsItIs):
    """A list of names, without doubles, or null for all. ``none``: the list may be empty."""

    param: str
    none: bool = True

    @property
    def taken(self) -> Schema:
        least = {} if self.none else {"minItems": 1}
        return {"type": ["array", "null"], "items": _NAME, **least}

    @property
    def shown(self) -> Schema:
        return {"type": ["array", "null"], "items": {"type": "string"}}

    def check(self, value: Any) -> tuple[str, ...] | None:
        if value is None:
            return None
        if (
            not isinstance(value, list | tuple)
            or len(value) > _MAX_NAMES
            or not all(isinstance(name, str) and name and name.isprintable() for name in value)
        ):
            raise BadRequest(
                f"{self.param} must be a list of names, or null for all", param=self.param
            )
        if not value and not self.none:
            raise BadRequest(f"a list of {self.param} needs at least one name", param=self.param)
        return tuple(dict.fromkeys(value))


@dataclass(frozen=True)
class NameOrNull(_AsItIs):
    """A name, or null for none. ``what``: how messages call it."""

    param: str
    what: str

    @property
    def taken(self) -> Schema:
        return {**_NAME, "type": ["string", "null"]}

    @property
    def shown(self) -> Schema:
        return {"type": ["string", "null"]}

    def check(self, value: Any) -> str | None:
        if value is None or (isinstance(value, str) and value and value.isprintable()):
            return value
        raise BadRequest(f"{self.what} must be a name, or null for none", param=self.param)


@dataclass(frozen=True)
class LimitsOrNull(_AsItIs):
    """An object with some of the limits of a key, or null for none of them."""

    param: str

    @property
    def taken(self) -> Schema:
        return {
            "type": ["object", "null"],
            "properties": {
                name: {"type": ["integer", "null"], "minimum": 1} for name in LIMIT_NAMES
            },
            "additionalProperties": False,
        }

    @property
    def shown(self) -> Schema:
        return {"type": ["object", "null"], "additionalProperties": {"type": "integer"}}

    def check(self, value: Any) -> dict[str, int] | None:
        if value is None:
            return None
        allowed = f"allowed: {', '.join(LIMIT_NAMES)}"
        if not isinstance(value, Mapping):
            raise BadRequest(
                f"{self.param} must be an object, or null for none; {allowed}", param=self.param
            )
        limits = {}
        for name, limit in value.items():
            if name not in LIMIT_NAMES:
                raise BadRequest(f"unknown limit {str(name)[:100]!r}; {allowed}", param=self.param)
            if limit is None:
                continue
            if type(limit) is not int or not 1 <= limit <= _MAX_LIMIT:
                raise BadRequest(
                    f"{name} must be a whole number of 1 or more, or null for no limit",
                    param=f"{self.param}.{name}",
                )
            limits[name] = limit
        return limits or None


TIME: Final[Schema] = {"type": "string", "format": "date-time"}
TIME_OR_NULL: Final[Schema] = {**TIME, "type": ["string", "null"]}


def time_text(moment: datetime | None) -> str | None:
    """Return a time in UTC as ``2030-12-31T23:59:59Z``."""
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ")
