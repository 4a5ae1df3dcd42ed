"""Answers in CSV (RFC 4180), for spreadsheets, to requests that aiohttp serves."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from gateway.errors import BadRequest

#: What a spreadsheet takes for the beginning of a formula (OWASP, "CSV Injection").
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def wants_csv(request: web.Request) -> bool:
    """Return whether it is asked for as CSV. Raises :class:`BadRequest`."""
    named = request.query.get("format")
    if named is None:
        return "text/csv" in request.headers.get("Accept", "")
    if named not in ("csv", "json"):
        raise BadRequest("`format` must be json or csv", param="format")
    return named == "csv"


def csv_response(
    columns: Sequence[str], rows: Iterable[Mapping[str, Any]], filename: str
) -> web.Response:
    """Return the ``columns`` of the rows as a file to save, with a header line."""
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(columns)
    lines.writerows([_cell(row[column]) for column in columns] for row in rows)
    return web.Response(
        text=text.getvalue(),
        content_type="text/csv",
        charset="utf-8",
        headers={"Content-Disposition": f'attachment; filename="{filename}"'},
    )


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value
