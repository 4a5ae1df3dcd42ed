"""The database: keys, their usage, and how much memory each model took. SQLite, through SQLAlchemy.

The one place that touches the file; nothing but it and its ``schema`` imports SQLAlchemy. That
import takes about 0.4 s (over 1 s where Python may not write its bytecode), so it comes late, and
in a running event loop as ``await asyncio.to_thread(importlib.import_module, "gateway.store")``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Row, bindparam, event, insert, make_url, or_, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, SQLAlchemyError, StatementError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from gateway.errors import GatewayError
from gateway.schema import CHANGEABLE, MIGRATIONS, SCHEMA_VERSION, keys, model_memory, usage
from gateway.tasks import spawn

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
    """An open database. Safe to use from any task of one event loop; close it at the end."""

    def __init__(self, engine: AsyncEngine, label: str) -> None:
        self._label = label
        self._running: set[asyncio.Task[None]] = set()
        self._reads = engine
        # Same pool; the option is what _on_begin looks at.
        self._writes = engine.execution_options(write=True)

    @classmethod
    async def open(cls, url: str) -> Self:
        """Open ``Settings.database_url()``, making the file or bringing it up to date if need be.

        Raises :class:`StoreError`, also for a file that a newer version of the gateway wrote.
        """
        file = _file_of(url)
        try:
            await asyncio.to_thread(_make_private, file)
        except OSError as error:
            raise StoreError(f"the database {file} cannot be made: {error.strerror}") from error
        engine = create_async_engine(
            url,
            hide_parameters=True,  # hashes of keys have no place in an error message
            # One connection: SQLite has one writer anyway, and each would be a thread.
            pool_size=1,
            max_overflow=0,
            connect_args={"timeout": BUSY_TIMEOUT, "isolation_level": None},
        )
        event.listen(engine.sync_engine, "connect", _on_connect)
        event.listen(engine.sync_engine, "begin", _on_begin)
        store = cls(engine, str(file))
        try:
            await store._migrate()
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """Close the file, after the transactions under way. May be called twice."""
        while self._running:
            await asyncio.wait(self._running)
        await self._reads.dispose()

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

    async def _transaction(self, engine: AsyncEngine, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction of its own, which ends well or badly but always ends.

        It's a task, so that a caller who is cancelled goes at once. Cancelled itself, the
        connection would first wait for the statement under way, and cancelled once more in that
        wait (a timeout, then the shutdown) it would be lost, with a thread that never ends.
        """
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        task = spawn(self._settle(engine, work, outcome), name="store: transaction")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await outcome

    async def _settle(
        self, engine: AsyncEngine, work: Callable[[Connection], T], outcome: asyncio.Future[T]
    ) -> None:
        error: Exception
        try:
            async with engine.begin() as connection:
                result = await connection.run_sync(work)
        except SQLAlchemyError as failure:
            # SQLAlchemy's own text repeats the statement; the driver's says what went wrong.
            cause = failure.orig if isinstance(failure, StatementError) else failure
            error = StoreError(f"the database {self._label}: {cause}")
            error.__cause__ = failure
        except Exception as failure:
            error = failure
        except BaseException:
            outcome.cancel()
            raise
        else:
            if not outcome.done():
                outcome.set_result(result)
            return
        if not outcome.done():
            outcome.set_exception(error)
        else:
            _log.error("%s, for a caller that has gone", error)

    async def _migrate(self) -> None:
        version = await self._read(_version)
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"the database {self._label} was written by a newer version of llm-gateway "
                f"(its schema is {version}, this program knows up to {SCHEMA_VERSION}): "
                "install that version again, or restore an older copy of the file",
                code="store_too_new",
            )
        if version < SCHEMA_VERSION:
            await self._write(_bring_up_to_date)


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


def _file_of(url: str) -> Path:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreError("the database's address cannot be understood") from error
    if parsed.drivername != "sqlite+aiosqlite" or parsed.database in (None, "", ":memory:"):
        raise StoreError("the database must be a file: sqlite+aiosqlite:///FOLDER/gateway.db")
    return Path(str(parsed.database))


def _make_private(file: Path) -> None:
    """Make the file (0600) and its folder (0700), whatever the umask; leave existing ones alone.

    SQLite gives its -wal and -shm files the mode and owner of the file beside them.
    """
    try:
        file.parent.mkdir(mode=stat.S_IRWXU, parents=True)
    except FileExistsError:
        pass
    else:
        file.parent.chmod(stat.S_IRWXU)
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
