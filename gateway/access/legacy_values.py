"""Reading the fields of an entry of the old ``authKeys.json``: texts, flags, times. Pure."""

from __future__ import annotations

import email.utils
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

#: The fields of one entry, by their names in lower case without separators.
Fields = Mapping[str, Any]


class NotUnderstood(Exception):
    """Why one entry can't be used. Holds no text of the file."""


def first(fields: Fields, names: tuple[str, ...]) -> Any:
    """The first of these fields that says something, or ``None``."""
    return next((fields[name] for name in names if fields.get(name) not in (None, "")), None)


def text(fields: Fields, names: tuple[str, ...]) -> str:
    """A text or number as text; ``""`` if there is none."""
    value = first(fields, names)
    if value is None or isinstance(value, str | int | float):
        return "" if value is None else str(value)
    raise NotUnderstood(f"its {names[0]} must be text")


def flag(fields: Fields, names: tuple[str, ...]) -> bool | None:
    """True or false, or ``None`` if there is no such field."""
    value = first(fields, names)
    if value in (None, True, False):  # 0 and 1 too
        return None if value is None else bool(value)
    if isinstance(value, str) and value.lower() in ("true", "false", "yes", "no"):
        return value.lower() in ("true", "yes")
    raise NotUnderstood(f"its field {names[0]!r} must be true or false")


def time_of(value: Any) -> datetime | None:
    """UTC from ISO 8601, seconds or milliseconds since 1970, or a date as JavaScript prints it.

    ``None`` for "never": null, 0, empty. :class:`ValueError` for anything else.
    """
    if isinstance(value, str):
        value = value.strip()
        if re.fullmatch(r"\d+(\.\d+)?", value):
            value = float(value)
    if value in (None, "", 0) or (isinstance(value, str) and value.lower() == "never"):
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value / 1000 if value >= 1e11 else value
        if not math.isfinite(seconds) or not 6e8 < seconds < 8e9:  # 1989 to 2223
            raise ValueError
        return datetime.fromtimestamp(seconds, UTC)
    if not isinstance(value, str):
        raise ValueError
    if at := re.match(r"[A-Z][a-z]{2} ([A-Z][a-z]{2} \d\d \d{4} [\d:]{8} GMT[+-]\d{4})", value):
        return datetime.strptime(at[1], "%b %d %Y %H:%M:%S GMT%z").astimezone(UTC)
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        found = email.utils.parsedate_to_datetime(value)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def is_time(value: Any) -> bool:
    """Whether :func:`time_of` reads a time from ``value``."""
    try:
        return time_of(value) is not None
    except (ValueError, OverflowError):
        return False


def time_in(fields: Fields, names: tuple[str, ...]) -> datetime | None:
    """A time in UTC, or ``None``. Raises :class:`NotUnderstood`."""
    try:
        return time_of(first(fields, names))
    except (ValueError, OverflowError):
        raise NotUnderstood(f"its field {names[0]!r} must be a date") from None
