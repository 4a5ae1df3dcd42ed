"""The store in an SQLite file. Only :mod:`gateway.access.database` uses it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine.interfaces import DBAPIConnection

from gateway.access.schema import version_of
from gateway.access.store_errors import StoreBusy, StoreError
from gateway.private_files import close_to_others, make_folder
from gateway.secret import Secret

_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class SqliteFile:
    """A file of SQLite, as a :class:`gateway.access.database.Place`."""

    insert = staticmethod(insert)
    mark = "?"
    text_bytes = "length(CAST({} AS BLOB))"
    request_bytes = 115  # measured, as in tests/access/postgres/test_requests_size.py
    shared_at: Secret | None = None

    def __init__(self, file: Path) -> None:
        self._file = file
        self.shown = f"Its file is {file}."

    def prepare(self) -> None:
        """Make the file, private. Blocks."""
        try:
            _make_private(self._file)
        except OSError as error:
            raise StoreError(
                f"the database cannot be made: {error.strerror}.", detail=self.shown
            ) from error

    def engine(self) -> Engine:
        """Return an engine with a connection that begins no transaction by itself, so that the
        schema changes inside one, too.
        """
        engine = create_engine(
            URL.create("sqlite", database=str(self._file)),
            hide_parameters=True,  # hashes of keys have no place in an error message
            pool_size=1,
            max_overflow=0,
            connect_args={"isolation_level": None},
        )
        event.listen(engine, "connect", on_connect)
        return engine

    def begin(self, connection: Connection, patience: float, *, writes: bool) -> None:
        """Begin a transaction that waits ``patience`` seconds for locks."""
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(patience * 1000)}")
        # A writer takes the lock at once: one that read first could not wait for it
        # (https://www.sqlite.org/lang_transaction.html, "BEGIN IMMEDIATE").
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    def failure(self, cause: BaseException) -> StoreError:
        """Return what went wrong, in words."""
        # The lower byte; the rest is the kind of "busy".
        if getattr(cause, "sqlite_errorcode", 0) & 0xFF in _BUSY:
            return StoreBusy(f"the gateway's database is kept busy by another program ({cause})")
        return StoreError(f"the database cannot be used: {cause}.", detail=self.shown)

    def version(self, connection: Connection) -> int | None:
        """Return the number of the schema; 0: it is empty; None: it is unknown."""
        version = version_of(connection)
        if version == 0:  # before there was Alembic, the number was there
            version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
        return version

    def others(self, connection: Connection) -> int:
        """Return 0: a file doesn't tell. A gateway that uses it has locked its folder."""
        return 0

    def lock(self, connection: Connection) -> None:
        """See :class:`gateway.access.database.Place`: who writes has done that."""

    def keys_changed(self, connection: Connection) -> None:
        """Do nothing: the command line tells a running gateway itself."""

    def upgraded(self, connection: Connection, version: int) -> None:
        """Note the schema where programs from before Alembic look whether they are too old."""
        connection.exec_driver_sql(f"PRAGMA user_version = {version}")


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
