"""Requests and tokens, added up by key, model and day: as JSON, and as CSV for a spreadsheet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from gateway.errors import BadRequest
from gateway.http.csv_response import csv_response
from gateway.quantities import whole_number

if TYPE_CHECKING:  # SQLAlchemy comes with it: see gateway.access.store
    from gateway.access.store import DailyUsage

MAX_DAYS: Final = 3660
#: What usage can be grouped by.
USAGE_BY: Final = ("key", "model", "day")
_COUNTERS: Final = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens")


def days_in(request: web.Request) -> int:
    """Return how many days are asked for, today among them. Raises :class:`BadRequest`."""
    days = whole_number(request.query.get("days", "30"))
    if days is None or not 1 <= days <= MAX_DAYS:
        raise BadRequest(f"`days` must be a whole number from 1 to {MAX_DAYS}", param="days")
    return days


def by_in(
    request: web.Request, allowed: Sequence[str] = USAGE_BY, default: str = "key,model"
) -> tuple[str, ...]:
    """Return what it is to be told by. Raises :class:`BadRequest`."""
    by = tuple(dict.fromkeys(request.query.get("by", default).split(",")))
    if not set(by) <= set(allowed):
        raise BadRequest(
            f"`by` must be one or more of {', '.join(allowed)}, with commas between them",
            param="by",
        )
    return by


def added_up(
    usage: Iterable[DailyUsage], by: Sequence[str], name_of: Callable[[str], str | None]
) -> list[dict[str, Any]]:
    """Return one row for each key, model or day that there is in ``usage``, as ``by`` has it."""
    totals: dict[tuple[str, ...], dict[str, Any]] = {}
    for used in usage:
        known = {"key": used.key_id, "model": used.model, "day": used.day.isoformat()}
        group = {field: known[field] for field in by}
        row = totals.get(tuple(group.values()))
        if row is None:
            name = {"name": name_of(used.key_id)} if "key" in by else {}
            row = {**group, **name, **dict.fromkeys(_COUNTERS, 0)}
            totals[tuple(group.values())] = row
        for counter in _COUNTERS:
            row[counter] += getattr(used, counter)
    return list(totals.values())


def as_csv(rows: Iterable[dict[str, Any]], by: Sequence[str], days: int) -> web.Response:
    """Return the rows as a CSV file to save."""
    columns = [
        *(name for field in by for name in ((field, "name") if field == "key" else (field,))),
        *_COUNTERS,
    ]
    return csv_response(columns, rows, f"usage-{days}-days.csv")
