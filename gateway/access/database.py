"""The database of the store, used in transactions: one writer and one reader at a time.

Only :mod:`gateway.access.store` uses it. Each of the two has a connection and a thread of its own,
so that what is asked for doesn't wait for a write that waits for another program. Where the
database is, in a file of SQLite or on a server of PostgreSQL, is a :class:`Place`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import SQLAlchemyError, StatementError

from gateway.access.schema import SCHEMA_VERSION, make_tables
from gateway.access.store_errors import StoreError
from gateway.secret import Secret

T = TypeVar("T")
_log = logging.getLogger(__name__)

#: Seconds that a write waits while another program (the command line) is writing.
BUSY_TIMEOUT = 10.0
#: The same for a read. Only a program that locks the whole file makes a read wait, or a file system
#: on which SQLite's journal cannot be shared. It is short, because a person waits for the answer.
READ_TIMEOUT = 2.0


class Place(Protocol):
    """Where a database is, and what differs between kinds of databases."""

    shown: str  # in words, for errors that only administrators see
    mark: str  # that stands for a value in plain SQL
    text_bytes: str  # the bytes of a text, ``{}``, in plain SQL
    request_bytes: int  # that the record of a request takes besides its texts, indices included
    insert: Callable[..., Any]  # SQLAlchemy's, with ``on_conflict_do_update``

    @property
    def shared_at(self) -> Secret | None:
        """If several gateways may use it: how PostgreSQL's library finds it."""

    def prepare(self) -> None:
        """Make what the database needs to be there. Blocks. Raises :class:`StoreError`."""

    def engine(self) -> Engine:
        """Return an engine with one connection."""

    def begin(self, connection: Connection, patience: float, *, writes: bool) -> None:
        """Begin a transaction that waits ``patience`` seconds for others."""

    def failure(self, cause: BaseException) -> StoreError:
        """Return the error of the store for one of the driver."""

    def version(self, connection: Connection) -> int | None:
        """Return the number of the schema; 0: the database is empty; None: it is unknown."""

    def others(self, connection: Connection) -> int:
        """Return how many connections other gateways and commands have, as far as that is known."""

    def lock(self, connection: Connection) -> None:
        """Let no other gateway do, until the transaction has ended, what is done only once: change
        the schema, make the first key.
        """

    def keys_changed(self, connection: Connection) -> None:
        """Tell other gateways that keys have changed, once the transaction has succeeded."""

    def upgraded(self, connection: Connection, version: int) -> None:
        """Note that the database has the schema of that number, as far as Alembic hasn't."""


def place_of(where: Path | Secret) -> Place:
    """Return the place of a database: a file of SQLite, or a URL of PostgreSQL.

    Raises :class:`StoreError`.
    """
    if isinstance(where, Path):
        from gateway.access.sqlite_file import SqliteFile

        return SqliteFile(where)
    try:
        from gateway.access.postgres import PostgresServer
    except ImportError as error:
        raise StoreError(
            "store.url needs psycopg, which isn't there: pip install 'psycopg[binary]'"
        ) from error
    return PostgresServer(where)


def known_version(place: Place, version: int | None) -> int:
    """Return the number of the schema of a database. Raises :class:`StoreError` for one that is
    newer than this program.
    """
    if version is None or version > SCHEMA_VERSION:
        raise StoreError(
            "the database was written by a newer version of llm-gateway "
            f"(its schema is {version or 'unknown'}, this program knows up to "
            f"{SCHEMA_VERSION}): install that version again, or restore an older copy of it.",
            detail=place.shown,
            code="store_too_new",
        )
    return version


def bring_up_to_date(place: Place, connection: Connection) -> None:
    """Make the tables, or bring them to this program's schema, in a transaction that writes."""
    place.lock(connection)
    # The version is read again: another process may have been faster, and now we have the lock.
    version = place.version(connection)
    if version == SCHEMA_VERSION:
        return
    if not version:
        make_tables(connection)
    else:
        from gateway.access import migrations  # Alembic comes with it

        migrations.upgrade(connection, version)
    place.upgraded(connection, SCHEMA_VERSION)


class Database:
    """An open database. Safe to use from any task of one event loop; close it at the end."""

    def __init__(self, where: Path | Secret) -> None:
        self.place: Final = place_of(where)
        self._writer = _Line(self.place, "store", writes=True)
        self._reader = _Line(self.place, "store reads", writes=False)
        self._running: set[asyncio.Future[Any]] = set()
        self._closed = False

    async def open(self) -> None:
        """Make the tables or bring them up to date if need be. Raises :class:`StoreError`."""
        await asyncio.to_thread(self.place.prepare)
        read = self.place.version
        if (
            known_version(self.place, await self._transaction(self._reader, read, BUSY_TIMEOUT))
            < SCHEMA_VERSION
        ):
            await self.write(partial(bring_up_to_date, self.place))
            # The reader has seen no tables: it would go on like that while another has the lock.
            await self._transaction(self._reader, read, BUSY_TIMEOUT)

    async def close(self) -> None:
        """Close the database, after the transactions under way. May be called twice."""
        if self._closed:
            return
        self._closed = True
        while self._running:
            await asyncio.wait(self._running)
        await self._reader.close()
        await self._writer.close()

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Return what ``work`` reads in a transaction of its own. A caller who is cancelled goes at
        once.

        Raises :class:`StoreError`; :class:`StoreBusy` after :data:`READ_TIMEOUT` seconds.
        """
        return await self._transaction(self._reader, work, READ_TIMEOUT)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction of its own, which ends well or badly but always ends.

        A caller who is cancelled goes at once; what it wanted to write is written. Raises
        :class:`StoreError`; :class:`StoreBusy` after :data:`BUSY_TIMEOUT` seconds.
        """
        return await self._transaction(self._writer, work, BUSY_TIMEOUT)

    async def _transaction(
        self, line: _Line, work: Callable[[Connection], T], patience: float
    ) -> T:
        if self._closed:
            raise StoreError("the database is closed.", detail=self.place.shown)
        future = line.begin(work, patience)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(_log_failure)
            if line is self._reader:  # in vain, and if it hasn't begun it needn't
                future.cancel()
            raise


class _Line:
    """A connection and the thread that runs its transactions, one after the other."""

    def __init__(self, place: Place, name: str, *, writes: bool) -> None:
        self._place = place
        self._writes = writes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._patience = 0.0  # of the transaction under way
        # Not SQLAlchemy's asyncio engine: that brings its ORM, 8 MB, and a greenlet.
        self._engine = place.engine()
        event.listen(self._engine, "begin", self._on_begin)

    def begin(self, work: Callable[[Connection], T], patience: float) -> asyncio.Future[T]:
        """Run ``work`` when its turn comes; from now on it waits ``patience`` seconds for locks."""
        loop = asyncio.get_running_loop()
        until = time.monotonic() + patience
        return loop.run_in_executor(self._thread, self._settle, work, until)

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._engine.dispose)
        self._thread.shutdown(wait=False)

    def _settle(self, work: Callable[[Connection], T], until: float) -> T:
        self._patience = max(until - time.monotonic(), 0.0)
        try:
            with self._engine.begin() as connection:
                return work(connection)
        except SQLAlchemyError as failure:
            # SQLAlchemy's own text repeats the statement; the driver's says what went wrong.
            cause = failure.orig if isinstance(failure, StatementError) else failure
            raise self._place.failure(cause or failure) from failure

    def _on_begin(self, connection: Connection) -> None:
        self._place.begin(connection, self._patience, writes=self._writes)


def _log_failure(transaction: asyncio.Future[Any]) -> None:
    if not transaction.cancelled() and (error := transaction.exception()) is not None:
        _log.error("%s, for a caller that has gone", error)
