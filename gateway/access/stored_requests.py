"""Ended requests in the database. Only the store calls this, within its transactions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final

from sqlalchemy import Connection, String, and_, delete, false, or_, select

from gateway.access.database import Place
from gateway.access.past_requests import PastRequest, RequestFilter
from gateway.access.schema import requests

#: The statements as drivers take them: SQLAlchemy's own way costs three times as much per row.
_INSERT: Final = "INSERT INTO requests ({}) VALUES {}"
_COLUMNS: Final = ", ".join(PastRequest._fields)
#: How many are inserted by one statement. SQLite's module gives Python's lock away for each, and
#: has to get it back from an event loop that is at work: 15 us, where a row itself takes 4.
_INSERTED_AT_ONCE: Final = 100
#: How many are measured in one statement: some milliseconds.
MEASURED_AT_ONCE: Final = 10_000
#: Columns of texts.
_TEXTS: Final = tuple(column.name for column in requests.c if isinstance(column.type, String))


def add(connection: Connection, records: Iterable[tuple[Any, ...]], mark: str) -> None:
    """Insert ``records``: the fields of a :class:`PastRequest` each, in a file that is ours alone.

    Those that are there already are replaced. ``mark`` stands for a value in SQL.
    """
    rows = list(records)
    for start in range(0, len(rows), _INSERTED_AT_ONCE):
        some = rows[start : start + _INSERTED_AT_ONCE]
        values = ", ".join([_marks(mark)] * len(some))
        insert = f"INSERT OR REPLACE INTO requests ({_COLUMNS}) VALUES {values}"  # noqa: S608
        connection.exec_driver_sql(insert, tuple(chain.from_iterable(some)))


def _marks(mark: str) -> str:
    return f"({', '.join([mark] * len(PastRequest._fields))})"


def add_shared(connection: Connection, records: Iterable[tuple[Any, ...]], mark: str) -> None:
    """Do the same where other gateways insert theirs.

    One of theirs may have ended in the same microsecond: then ours gets the next number.
    """
    rows = list(records)
    insert = _INSERT.format(_COLUMNS, _marks(mark)) + " ON CONFLICT (seq) DO NOTHING"
    while rows:
        done = connection.exec_driver_sql(insert, rows)
        rows = [] if done.rowcount == len(rows) else _missing(connection, rows)


def _missing(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return those that are not there, in whose place there is another, with the next number."""
    columns = requests.c
    query = select(columns.seq, columns.id).where(columns.seq.in_([row[0] for row in rows]))
    there = {tuple(row) for row in connection.execute(query)}
    return [(row[0] + 1, *row[1:]) for row in rows if (row[0], row[1]) not in there]


def first_beyond(connection: Connection, most: int, mark: str) -> int | None:
    """Return the number of the newest of those beyond the newest ``most``."""
    # In plain SQL: what SQLAlchemy makes of an expression, it keeps.
    query = f"SELECT seq FROM requests ORDER BY seq DESC LIMIT 1 OFFSET {mark}"  # noqa: S608
    return connection.exec_driver_sql(query, (most,)).scalar_one_or_none()


def size_below(connection: Connection, before: int, place: Place) -> tuple[int | None, int]:
    """Return the number of the oldest of the next :data:`MEASURED_AT_ONCE` before a number, and the
    bytes that they take; ``None``: there are none.
    """
    query = f"SELECT min(seq), sum(bytes) FROM ({_sizes(place)}) AS sizes"  # noqa: S608
    oldest, size = connection.exec_driver_sql(query, (before,)).one()
    return oldest, int(size or 0)


def first_too_large(connection: Connection, before: int, size: int, place: Place) -> int:
    """Return the number of the first of these with which they take more than ``size``."""
    sums = (
        f"SELECT seq, sum(bytes) OVER (ORDER BY seq DESC) AS so_far FROM ({_sizes(place)}) AS sizes"  # noqa: S608
    )
    query = f"SELECT max(seq) FROM ({sums}) AS sums WHERE so_far > {place.mark}"  # noqa: S608
    return int(connection.exec_driver_sql(query, (before, size)).scalar_one() or 0)


def _sizes(place: Place) -> str:
    """Return the query of the numbers and bytes of those before a number, the newest first."""
    texts = " + ".join(f"coalesce({place.text_bytes.format(name)}, 0)" for name in _TEXTS)
    return (
        f"SELECT seq, {place.request_bytes} + {texts} AS bytes FROM requests "  # noqa: S608
        f"WHERE seq < {place.mark} ORDER BY seq DESC LIMIT {MEASURED_AT_ONCE}"
    )


def delete_some(connection: Connection, before: int, some: int, mark: str) -> int:
    """Delete at most ``some`` of those before a number, the oldest, and return how many."""
    oldest = f"SELECT seq FROM requests WHERE seq < {mark} ORDER BY seq LIMIT {mark}"  # noqa: S608
    delete_them = f"DELETE FROM requests WHERE seq IN ({oldest})"  # noqa: S608
    return connection.exec_driver_sql(delete_them, (before, some)).rowcount


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
