"""An SQLite file, used in transactions: one writer and one reader at a time.

Only :mod:`gateway.access.store` uses it. Each of the two has a connection and a thread of its own,
so that what is asked for doesn't wait for a write that waits for another program.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError, StatementError

from gateway.access.schema import SCHEMA_VERSION, make_tables, version_of
from gateway.errors import GatewayError
from gateway.private_files import close_to_others, make_folder

T = TypeVar("T")
_log = logging.getLogger(__name__)

#: Seconds that a write waits while another program (the command line) is writing.
BUSY_TIMEOUT = 10.0
#: The same for a read. Only a program that locks the whole file makes a read wait, or a file system
#: on which SQLite's journal cannot be shared. It is short, because a person waits for the answer.
READ_TIMEOUT = 2.0
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class StoreError(GatewayError):
    """500: the database cannot be opened, read or written."""

    default_code = "store_error"


class StoreBusy(StoreError):
    """503: another program has locked the database."""

    status = 503
    type = "overloaded_error"
    default_code = "store_busy"
    retry_after = "5"


class Database:
    """An open file. Safe to use from any task of one event loop; close it at the end."""

    def __init__(self, file: Path) -> None:
        self.file = file
        # A writer takes the lock at once: one that read first could not wait for it
        # (https://www.sqlite.org/lang_transaction.html, "BEGIN IMMEDIATE").
        self._writer = _Connected(file, "store", "BEGIN IMMEDIATE")
        self._reader = _Connected(file, "store reads", "BEGIN")
        self._running: set[asyncio.Future[Any]] = set()
        self._closed = False

    async def open(self) -> None:
        """Make the file or bring it up to date if need be. Raises :class:`StoreError`."""
        try:
            await asyncio.to_thread(_make_private, self.file)
        except OSError as error:
            raise StoreError(
                f"the database cannot be made: {error.strerror}.", detail=_place(self.file)
            ) from error
        version = await self._transaction(self._reader, _version, BUSY_TIMEOUT)
        if version is None or version > SCHEMA_VERSION:
            raise StoreError(
                "the database was written by a newer version of llm-gateway "
                f"(its schema is {version or 'unknown'}, this program knows up to "
                f"{SCHEMA_VERSION}): install that version again, or restore an older copy of the "
                "file.",
                detail=_place(self.file),
                code="store_too_new",
            )
        if version < SCHEMA_VERSION:
            await self.write(_bring_up_to_date)
            # The reader has seen no tables: it would go on like that while another has the lock.
            await self._transaction(self._reader, _version, BUSY_TIMEOUT)

    async def close(self) -> None:
        """Close the file, after the transactions under way. May be called twice."""
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
        self, line: _Connected, work: Callable[[Connection], T], patience: float
    ) -> T:
        if self._closed:
            raise StoreError("the database is closed.", detail=_place(self.file))
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


class _Connected:
    """A connection and the thread that runs its transactions, one after the other."""

    def __init__(self, file: Path, name: str, begin: str) -> None:
        self._file = file
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._begin = begin
        self._patience = 0.0  # of the transaction under way
        # Not SQLAlchemy's asyncio engine: that brings its ORM, 8 MB, and a greenlet.
        self._engine = create_engine(
            URL.create("sqlite", database=str(file)),
            hide_parameters=True,  # hashes of keys have no place in an error message
            pool_size=1,
            max_overflow=0,
            connect_args={"timeout": BUSY_TIMEOUT, "isolation_level": None},
        )
        event.listen(self._engine, "connect", on_connect)
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
            # The lower byte; the rest is the kind of "busy".
            if getattr(cause, "sqlite_errorcode", 0) & 0xFF in _BUSY:
                raise StoreBusy(
                    f"the gateway's database is kept busy by another program ({cause})"
                ) from failure
            raise StoreError(
                f"the database cannot be used: {cause}.", detail=_place(self._file)
            ) from failure

    def _on_begin(self, connection: Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(self._patience * 1000)}")
        # The driver begins nothing (isolation_level None), so that the schema changes inside a
        # transaction too.
        connection.exec_driver_sql(self._begin)


def _place(file: Path) -> str:
    """Return where the database is, for errors that only administrators see."""
    return f"Its file is {file}."


def _log_failure(transaction: asyncio.Future[Any]) -> None:
    if not transaction.cancelled() and (error := transaction.exception()) is not None:
        _log.error("%s, for a caller that has gone", error)


def _version(connection: Connection) -> int | None:
    version = version_of(connection)
    if version == 0:  # before there was Alembic, the number was there
        version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    return version


def _bring_up_to_date(connection: Connection) -> None:
    # The version is read again: another process may have been faster, and now we have the lock.
    version = _version(connection)
    if version == SCHEMA_VERSION:
        return
    if not version:
        make_tables(connection)
    else:
        from gateway.access import migrations  # Alembic comes with it

        migrations.upgrade(connection, version)
    # Programs from before Alembic look here whether they are too old.
    connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")


def on_connect(connection: DBAPIConnection, _record: object) -> None:
    """Set up a new connection, as SQLAlchemy's event ``connect`` asks for it."""
    cursor = connection.cursor()
    try:
        cursor.execute("PRAGMA foreign_keys = ON")
        # Readers and the writer don't wait for each other. Where the file system can't do it,
        # SQLite keeps its old journal, which is as safe. `synchronous` stays FULL: a revoked key
        # must not come back after a power cut, and a write every few seconds costs nothing.
        cursor.execute("PRAGMA journal_mode = WAL")
    finally:
        cursor.close()


def _make_private(file: Path) -> None:
    """Make the file (0600) and its folder (0700), whatever the umask; leave existing ones alone.

    With the file, the folder of before is closed to others: `git clone` and `mkdir` leave it open,
    and from now on there are private things in it. SQLite gives its -wal and -shm files the mode
    and owner of the file beside them.
    """
    make_folder(file.parent)
    try:
        handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    try:
        os.fchmod(handle, 0o600)
        close_to_others(file.parent)
        if os.geteuid() == 0:
            # `sudo llm-gateway keys create` before the service's first start: the service, which
            # owns the folder, must be able to open the file.
            folder = file.parent.stat()
            os.fchown(handle, folder.st_uid, folder.st_gid)
    finally:
        os.close(handle)
