"""The database: keys, their usage, requests, and the memory of models. SQLite, through SQLAlchemy.

The one place that touches the file; nothing but it, its ``schema`` and what it asks of
:mod:`gateway.stored_requests` imports SQLAlchemy. That
import takes about 0.4 s (over 1 s where Python may not write its bytecode), so it comes late, and
in a running event loop as ``await asyncio.to_thread(importlib.import_module, "gateway.store")``.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Row,
    bindparam,
    create_engine,
    event,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError, StatementError

from gateway.errors import GatewayError
from gateway.past_requests import PastRequest, Wanted
from gateway.private_files import make_folder
from gateway.schema import CHANGEABLE, MIGRATIONS, SCHEMA_VERSION, keys, model_memory, usage
from gateway.stored_requests import add, clear, page, prune

T = TypeVar("T")
_log = logging.getLogger(__name__)

#: Seconds to wait for another process (the command line) that is writing.
BUSY_TIMEOUT = 10.0


class StoreError(GatewayError):
    """500: the database cannot be opened, read or written."""

    default_code = "store_error"


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One key as it's kept: everything but the key itself. Times are UTC, and aware."""

    id: str  # public, like "k_ab12cd34": for logs, lists and `keys revoke`
    name: str
    hash: str  # SHA-256 of the key, 64 hex digits
    created: datetime
    description: str = ""
    admin: bool = False
    expires: datetime | None = None
    revoked: datetime | None = None
    last_activity: datetime | None = None
    models: tuple[str, ...] | None = None  # None: every model
    personalities: tuple[str, ...] | None = None  # None: every personality
    default_personality: str | None = None
    limits: Mapping[str, int] | None = None  # rpm, tpm, tpd, concurrency; a missing one: no limit
    imported: bool = False  # taken over from the old system: may be short, and guessable


@dataclass(frozen=True, slots=True)
class Usage:
    """What one key used of one model on one day (UTC). Adding it again adds up."""

    key_id: str
    model: str
    day: date
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Store:
    """An open database. Safe to use from any task of one event loop; close it at the end.

    All of it happens in one thread, one transaction after the other. SQLite has one writer anyway.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._running: set[asyncio.Future[Any]] = set()
        self._closed = False
        # Not SQLAlchemy's asyncio engine: that brings its ORM, 8 MB, and a greenlet.
        self._reads = create_engine(
            URL.create("sqlite", database=str(file)),
            hide_parameters=True,  # hashes of keys have no place in an error message
            pool_size=1,
            max_overflow=0,
            connect_args={"timeout": BUSY_TIMEOUT, "isolation_level": None},
        )
        event.listen(self._reads, "connect", _on_connect)
        event.listen(self._reads, "begin", _on_begin)
        # Same pool; the option is what _on_begin looks at.
        self._writes = self._reads.execution_options(write=True)

    @classmethod
    async def open(cls, file: Path) -> Self:
        """Open the database in ``file``, making the file or bringing it up to date if need be.

        Raises :class:`StoreError`, also for a file that a newer version of the gateway wrote.
        """
        try:
            await asyncio.to_thread(_make_private, file)
        except OSError as error:
            raise StoreError(f"the database {file} cannot be made: {error.strerror}") from error
        store = cls(file)
        try:
            await store._migrate()
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """Close the file, after the transactions under way. May be called twice."""
        if self._closed:
            return
        self._closed = True
        while self._running:
            await asyncio.wait(self._running)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._reads.dispose)  # the connection is its own
        self._thread.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    # --- keys ------------------------------------------------------------------------------

    async def list_keys(self) -> list[KeyRecord]:
        """Every key, revoked ones too, oldest first."""
        query = select(keys).order_by(keys.c.created, keys.c.id)
        return await self._read(lambda connection: [*map(_key_record, connection.execute(query))])

    async def add_key(self, record: KeyRecord) -> None:
        """Keep a new key. :class:`StoreError` if its id or hash is there already."""
        await self.add_keys((record,))

    async def add_keys(self, records: Iterable[KeyRecord]) -> None:
        """Keep new keys: all of them, or after an error none."""
        rows = [
            {field.name: _plain(getattr(record, field.name)) for field in fields(record)}
            for record in records
        ]
        if rows:
            await self._write(lambda connection: connection.execute(insert(keys), rows))

    async def update_key(self, key_id: str, **changes: Any) -> KeyRecord:
        """Change fields of a key, and return it as it is now. A key's id and hash never change."""
        if not changes or not changes.keys() <= CHANGEABLE:
            raise ValueError(f"cannot change {sorted(changes.keys() - CHANGEABLE) or 'nothing'}")
        values = {name: _plain(value) for name, value in changes.items()}

        def work(connection: Connection) -> Row[Any] | None:
            connection.execute(update(keys).where(keys.c.id == key_id).values(values))
            return connection.execute(select(keys).where(keys.c.id == key_id)).first()

        row = await self._write(work)
        if row is None:
            raise StoreError(f"there is no key {key_id!r} in the database", code="key_not_found")
        return _key_record(row)

    async def touch_keys(self, last_activity: Mapping[str, datetime]) -> None:
        """Write when keys were last used, in one transaction. A later time that's there stays."""
        if not last_activity:
            return
        older = or_(keys.c.last_activity.is_(None), keys.c.last_activity < bindparam("at"))
        statement = (
            update(keys)
            .where(keys.c.id == bindparam("key_id"), older)
            .values(last_activity=bindparam("at"))
        )
        rows = [{"key_id": key_id, "at": at} for key_id, at in last_activity.items()]
        await self._write(lambda connection: connection.execute(statement, rows))

    # --- usage -----------------------------------------------------------------------------

    async def add_usage(self, records: Iterable[Usage]) -> None:
        """Add to the counters of each key, model and day, in one transaction."""
        rows = [
            {field.name: getattr(item, field.name) for field in fields(item)} for item in records
        ]
        if not rows:
            return
        statement = upsert(usage)
        statement = statement.on_conflict_do_update(
            index_elements=list(usage.primary_key),
            set_={
                name: usage.c[name] + statement.excluded[name]
                for name in ("requests", "prompt_tokens", "completion_tokens")
            },
        )
        await self._write(lambda connection: connection.execute(statement, rows))

    async def usage_of(
        self, key_id: str | None = None, *, since: date | None = None
    ) -> list[Usage]:
        """Counters of one key, or of all; from the day ``since`` on. Ordered by day, key, model."""
        query = select(usage).order_by(usage.c.day, usage.c.key_id, usage.c.model)
        if key_id is not None:
            query = query.where(usage.c.key_id == key_id)
        if since is not None:
            query = query.where(usage.c.day >= since)
        return await self._read(
            lambda connection: [Usage(**row._mapping) for row in connection.execute(query)]
        )

    # --- requests --------------------------------------------------------------------------

    async def add_requests(
        self,
        records: Iterable[tuple[Any, ...]],
        *,
        since: int | None = None,
        most: int | None = None,
    ) -> None:
        """Keep requests that have ended, in one transaction: the fields of each
        :class:`PastRequest`. ``records`` is gone through off the event loop.

        Given ``since`` and ``most``, those before that number, and the oldest beyond so many, go.
        """

        def work(connection: Connection) -> None:
            add(connection, records)
            if since is not None and most is not None:
                prune(connection, since, most)

        await self._write(work)

    async def clear_requests(self) -> None:
        """Forget every request, of any age."""
        await self._write(clear)

    async def requests_of(self, wanted: Wanted) -> list[PastRequest]:
        """Those that are ``wanted``, the newest first."""
        return await self._read(lambda connection: page(connection, wanted))

    # --- memory of models ------------------------------------------------------------------

    async def remember_memory(self, fingerprint: str, size: int) -> None:
        """Keep how many bytes a model took. ``fingerprint``: its file and what changes its size."""
        row = {"fingerprint": fingerprint, "bytes": size, "measured": datetime.now(UTC)}
        statement = upsert(model_memory).values(row)
        statement = statement.on_conflict_do_update(
            index_elements=["fingerprint"],
            set_={name: statement.excluded[name] for name in ("bytes", "measured")},
        )
        await self._write(lambda connection: connection.execute(statement))

    async def known_memory(self) -> dict[str, int]:
        """Bytes by fingerprint, for every model ever measured."""
        query = select(model_memory.c.fingerprint, model_memory.c.bytes)
        return await self._read(
            lambda connection: {row.fingerprint: row.bytes for row in connection.execute(query)}
        )

    # --- below: transactions ---------------------------------------------------------------

    async def _read(self, work: Callable[[Connection], T]) -> T:
        return await self._transaction(self._reads, work)

    async def _write(self, work: Callable[[Connection], T]) -> T:
        return await self._transaction(self._writes, work)

    async def _transaction(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction of its own, which ends well or badly but always ends.

        A caller who is cancelled goes at once; what it wanted to write is written.
        """
        if self._closed:
            raise StoreError(f"the database {self._file} is closed")
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._thread, self._settle, engine, work)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(_log_failure)
            raise

    def _settle(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        try:
            with engine.begin() as connection:
                return work(connection)
        except SQLAlchemyError as failure:
            # SQLAlchemy's own text repeats the statement; the driver's says what went wrong.
            cause = failure.orig if isinstance(failure, StatementError) else failure
            raise StoreError(f"the database {self._file}: {cause}") from failure

    async def _migrate(self) -> None:
        version = await self._read(_version)
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"the database {self._file} was written by a newer version of llm-gateway "
                f"(its schema is {version}, this program knows up to {SCHEMA_VERSION}): "
                "install that version again, or restore an older copy of the file",
                code="store_too_new",
            )
        if version < SCHEMA_VERSION:
            await self._write(_bring_up_to_date)


def _log_failure(transaction: asyncio.Future[Any]) -> None:
    if not transaction.cancelled() and (error := transaction.exception()) is not None:
        _log.error("%s, for a caller that has gone", error)


def _version(connection: Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())


def _bring_up_to_date(connection: Connection) -> None:
    # The version is read again: another process may have been faster, and now we have the lock.
    for steps in MIGRATIONS[_version(connection) :]:
        for step in steps:
            connection.exec_driver_sql(step)
    connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _on_connect(connection: DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    try:
        cursor.execute("PRAGMA foreign_keys = ON")
        # Readers and the writer don't wait for each other. Where the file system can't do it,
        # SQLite keeps its old journal, which is as safe. `synchronous` stays FULL: a revoked key
        # must not come back after a power cut, and a write every few seconds costs nothing.
        cursor.execute("PRAGMA journal_mode = WAL")
    finally:
        cursor.close()


def _on_begin(connection: Connection) -> None:
    # The driver begins nothing (isolation_level None), so that the schema changes inside a
    # transaction too. A writer takes the lock at once: one that read first could not wait for it
    # (https://www.sqlite.org/lang_transaction.html, "BEGIN IMMEDIATE").
    write = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _make_private(file: Path) -> None:
    """Make the file (0600) and its folder (0700), whatever the umask; leave existing ones alone.

    SQLite gives its -wal and -shm files the mode and owner of the file beside them.
    """
    make_folder(file.parent)
    try:
        handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    try:
        os.fchmod(handle, 0o600)
        if os.geteuid() == 0:
            # `sudo llm-gateway keys create` before the service's first start: the service, which
            # owns the folder, must be able to open the file.
            folder = file.parent.stat()
            os.fchown(handle, folder.st_uid, folder.st_gid)
    finally:
        os.close(handle)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value


def _key_record(row: Row[Any]) -> KeyRecord:
    values = dict(row._mapping)
    for name in ("models", "personalities"):
        if values[name] is not None:
            values[name] = tuple(values[name])
    return KeyRecord(**values)
