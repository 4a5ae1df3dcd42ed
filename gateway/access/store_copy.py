"""Copies everything from one database of the store into another: to PostgreSQL, or back.

It goes by the tables that the schema has, so tables and columns that are added later are copied
too. Everything blocks: only a command uses it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, LargeBinary, Table, delete, event, func, insert, select
from sqlalchemy.exc import SQLAlchemyError, StatementError

from gateway.access.database import Place, bring_up_to_date, known_version, place_of
from gateway.access.schema import SCHEMA_VERSION, metadata
from gateway.access.store_errors import StoreError
from gateway.plurals import counted
from gateway.secret import Secret

#: Is told a table, how many of its rows have been copied, and how many there are.
Progress = Callable[[str, int, int], None]
#: How many rows are read and written at once, and of tables that may have long ones.
_BATCH: Final = 1000
_FEW: Final = 16
#: Seconds that a statement may take, or wait for another program.
_PATIENCE: Final = 60.0


def copy_store(
    source: Path | Secret, target: Path | Secret, progress: Progress, *, replace: bool = False
) -> dict[str, int]:
    """Copy every row of ``source`` into ``target``, in one transaction: all of them, or none.

    ``target`` gets its tables if it has none; what is in it is an error, or, with ``replace``,
    deleted first. Returns how many rows each table had. Raises :class:`StoreError`.
    """
    ends = _End(source), _End(target)
    try:
        with ends[0].transaction(writes=True) as connection:
            ends[0].make_ready(connection, "read from")
        with (
            ends[0].transaction(writes=False) as reading,
            ends[1].transaction(writes=True) as writing,
        ):
            counts = _counts(reading)
            if not any(counts.values()):
                raise StoreError("there is nothing to copy.", detail=ends[0].place.shown)
            ends[1].make_ready(writing, "written to")
            ends[1].empty(writing, replace=replace)
            for table in metadata.sorted_tables:
                for done in _copied(table, reading, writing):
                    progress(table.name, done, counts[table.name])
            _check(counts, _counts(writing))
    except SQLAlchemyError as failure:
        cause = failure.orig if isinstance(failure, StatementError) else failure
        of_a_file = isinstance(cause, sqlite3.Error)
        place = next(end.place for end in ends if (end.place.shared_at is None) == of_a_file)
        raise place.failure(cause or failure) from failure
    finally:
        for end in ends:
            end.close()
    return counts


class _End:
    """One of the two databases."""

    def __init__(self, where: Path | Secret) -> None:
        self.place: Final[Place] = place_of(where)
        self.place.prepare()
        self._engine = self.place.engine()
        self._writes = False
        event.listen(self._engine, "begin", self._on_begin)

    @contextlib.contextmanager
    def transaction(self, *, writes: bool) -> Iterator[Connection]:
        """Begin one; what only reads sees everything as it was at one moment."""
        self._writes = writes
        engine = self._engine
        if not writes and self.place.shared_at is not None:  # SQLite has nothing else
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
        with engine.begin() as connection:
            yield connection

    def make_ready(self, connection: Connection, what: str) -> None:
        """See that nobody else uses it, and bring its schema up to date."""
        if others := self.place.others(connection):
            raise StoreError(
                f"the database is to be {what}, and {counted(others, 'other connection')} of "
                "llm-gateway use it: stop every gateway on it first.",
                detail=self.place.shown,
                code="store_in_use",
            )
        if known_version(self.place, self.place.version(connection)) < SCHEMA_VERSION:
            bring_up_to_date(self.place, connection)

    def empty(self, connection: Connection, *, replace: bool) -> None:
        """Delete what is in it if that is wanted; else it is an error."""
        found = {name: count for name, count in _counts(connection).items() if count}
        if found and not replace:
            told = ", ".join(f"{name}: {count}" for name, count in found.items())
            raise StoreError(
                f"the database to be written to is not empty ({told}); --replace deletes what is "
                "in it.",
                detail=self.place.shown,
                code="store_not_empty",
            )
        for table in reversed(metadata.sorted_tables):
            if table.name in found:
                connection.execute(delete(table))

    def close(self) -> None:
        """Close its connection."""
        self._engine.dispose()

    def _on_begin(self, connection: Connection) -> None:
        self.place.begin(connection, _PATIENCE, writes=self._writes)


def _counts(connection: Connection) -> dict[str, int]:
    """Return how many rows each table has."""
    return {
        table.name: int(connection.execute(select(func.count()).select_from(table)).scalar_one())
        for table in metadata.sorted_tables
    }


def _copied(table: Table, reading: Connection, writing: Connection) -> Iterator[int]:
    """Copy the rows of a table; yield how many have been, again and again."""
    long = any(isinstance(column.type, LargeBinary) for column in table.c)
    query = select(table).execution_options(yield_per=_FEW if long else _BATCH)
    done = 0
    for rows in reading.execute(query).mappings().partitions():
        batch: list[dict[str, Any]] = [{**row} for row in rows]
        writing.execute(insert(table), batch)
        done += len(batch)
        yield done
    _count_on(table, writing)


def _count_on(table: Table, connection: Connection) -> None:
    """Let numbers that PostgreSQL gives to rows itself go on behind those that were copied."""
    column = table.autoincrement_column
    if column is None or connection.dialect.name != "postgresql":
        return
    last = select(func.max(column)).scalar_subquery()
    sequence = func.pg_get_serial_sequence(table.name, column.name)
    connection.execute(select(func.setval(sequence, last)).where(last.is_not(None)))


def _check(wanted: dict[str, int], found: dict[str, int]) -> None:
    if wanted != found:
        table = next(name for name in wanted if wanted[name] != found[name])
        raise StoreError(
            f"of the {wanted[table]} rows of {table}, {found[table]} have arrived: nothing was "
            "copied"
        )
