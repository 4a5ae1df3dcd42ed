"""Ended requests in the database. Only the store calls this, within its transactions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import Connection, and_, delete, false, or_, select

from gateway.access.past_requests import PastRequest, RequestFilter
from gateway.access.schema import requests

#: The statement as the driver takes it: SQLAlchemy's own way costs three times as much per row.
_INSERT: Final = "INSERT OR REPLACE INTO requests ({}) VALUES ({})".format(  # noqa: S608
    ", ".join(PastRequest._fields), ", ".join("?" * len(PastRequest._fields))
)


def add(connection: Connection, records: Iterable[tuple[Any, ...]]) -> None:
    """Insert ``records``: the fields of a :class:`PastRequest` each."""
    if rows := list(records):
        connection.exec_driver_sql(_INSERT, rows)


def prune(connection: Connection, since: int, most: int) -> None:
    """Delete those before ``since``, and all but the newest ``most``."""
    # In plain SQL: what SQLAlchemy makes of an expression, it keeps.
    oldest = "SELECT seq FROM requests ORDER BY seq DESC LIMIT 1 OFFSET ?"
    beyond = connection.exec_driver_sql(oldest, (most,)).scalar_one_or_none()
    if beyond is not None:
        since = max(since, beyond + 1)
    connection.exec_driver_sql("DELETE FROM requests WHERE seq < ?", (since,))


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
