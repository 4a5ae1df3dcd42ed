"""Ended requests in the database. Only the store calls this, within its transactions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, and_, delete, false, or_, select

from gateway.access.past_requests import PastRequest, RequestFilter
from gateway.access.schema import requests

#: The statements as drivers take them: SQLAlchemy's own way costs three times as much per row.
_INSERT: Final = "INSERT {}INTO requests ({}) VALUES ({})"
_COLUMNS: Final = ", ".join(PastRequest._fields)


def add(connection: Connection, records: Iterable[tuple[Any, ...]], mark: str) -> None:
    """Insert ``records``: the fields of a :class:`PastRequest` each, in a file that is ours alone.

    Those that are there already are replaced. ``mark`` stands for a value in SQL.
    """
    if rows := list(records):
        marks = ", ".join([mark] * len(PastRequest._fields))
        connection.exec_driver_sql(_INSERT.format("OR REPLACE ", _COLUMNS, marks), rows)


def add_shared(connection: Connection, records: Iterable[tuple[Any, ...]], mark: str) -> None:
    """Do the same where other gateways insert theirs.

    One of theirs may have ended in the same microsecond: then ours gets the next number.
    """
    rows = list(records)
    marks = ", ".join([mark] * len(PastRequest._fields))
    insert = _INSERT.format("", _COLUMNS, marks) + " ON CONFLICT (seq) DO NOTHING"
    while rows:
        done = connection.exec_driver_sql(insert, rows)
        rows = [] if done.rowcount == len(rows) else _missing(connection, rows)


def _missing(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return those that are not there, in whose place there is another, with the next number."""
    columns = requests.c
    query = select(columns.seq, columns.id).where(columns.seq.in_([row[0] for row in rows]))
    there = {tuple(row) for row in connection.execute(query)}
    return [(row[0] + 1, *row[1:]) for row in rows if (row[0], row[1]) not in there]


def prune(connection: Connection, since: int, most: int, mark: str) -> None:
    """Delete those before ``since``, and all but the newest ``most``."""
    # In plain SQL: what SQLAlchemy makes of an expression, it keeps.
    oldest = f"SELECT seq FROM requests ORDER BY seq DESC LIMIT 1 OFFSET {mark}"  # noqa: S608
    beyond = connection.exec_driver_sql(oldest, (most,)).scalar_one_or_none()
    if beyond is not None:
        since = max(since, beyond + 1)
    delete_older = f"DELETE FROM requests WHERE seq < {mark}"  # noqa: S608
    connection.exec_driver_sql(delete_older, (since,))


def clear(connection: Connection) -> None:
    """Delete all of them."""
    connection.execute(delete(requests))


def page(connection: Connection, wanted: RequestFilter) -> list[PastRequest]:
    """Return those that are ``wanted``, the newest first."""
    columns = requests.c
    query = select(requests).order_by(columns.seq.desc()).limit(wanted.limit)
    if wanted.before is not None:
        query = query.where(columns.seq < wanted.before)
    if wanted.key_ids is not None:
        query = query.where(columns.key_id.in_(wanted.key_ids))
    if wanted.model is not None:
        query = query.where(columns.model == wanted.model)
    if wanted.slow is not None:
        query = query.where(columns.seconds >= wanted.slow)
    if wanted.cached_from is not None:
        named = [place for place in wanted.cached_from if place is not None]
        nowhere = columns.cached_from.is_(None) if None in wanted.cached_from else false()
        query = query.where(or_(columns.cached_from.in_(named), nowhere))
    if wanted.statuses is not None:
        ranges = (
            and_(columns.status >= first, columns.status <= last) for first, last in wanted.statuses
        )
        query = query.where(or_(False, *ranges))
    return [PastRequest(*row) for row in connection.execute(query)]
