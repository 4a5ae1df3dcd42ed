"""The store: keys, their usage, requests, and the measured memory of models.

The one place that reads and writes the database, through SQLAlchemy, in SQLite or PostgreSQL. Only
it and what it stands on (``schema``, ``migrations``, ``database`` with ``sqlite_file`` and
``postgres``, ``stored_requests``) imports SQLAlchemy. That import takes about 0.4 s (over 1 s where
Python may not write its bytecode), so it comes late, and in a running event loop in a thread:
``await asyncio.to_thread(importlib.import_module, "gateway.access.store")``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from sqlalchemy import Connection, Row, bindparam, insert, or_, select, update

from gateway.access.database import Database
from gateway.access.past_requests import PastRequest, RequestFilter
from gateway.access.response_store import ResponseStore
from gateway.access.schema import CHANGEABLE, keys, model_memory, usage
from gateway.access.store_errors import StoreBusy, StoreError, StoreUnreachable
from gateway.access.stored_requests import (
    add,
    add_shared,
    clear,
    delete_some,
    first_beyond,
    first_too_large,
    page,
    size_below,
)
from gateway.secret import Secret

__all__ = ["DailyUsage", "KeyRecord", "Store", "StoreBusy", "StoreError", "StoreUnreachable"]

#: What is counted by key, model and day.
USAGE_COUNTERS: Final = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens")

#: How many records of requests are deleted in one transaction: some milliseconds.
DELETED_AT_ONCE: Final = 2000
#: A number that no request has: they count microseconds.
_END: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One key as it is stored: everything but the key itself. Times are UTC, and aware."""

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
    metrics: bool = False  # may only read metrics, unless it is an admin key
    imported: bool = False  # taken over from the old system: may be short, and guessable


@dataclass(frozen=True, slots=True)
class DailyUsage:
    """The usage of one model by one key on one day (UTC). Adding a second one sums them up."""

    key_id: str
    model: str
    day: date
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0  # of those of prompts


class Store(ResponseStore):
    """An open database. Safe to use from any task of one event loop; close it at the end."""

    def __init__(self, database: Database) -> None:
        self._database = database
        super().__init__(database)
        place = self._place = database.place
        self._insert, self._mark = place.insert, place.mark
        self._keys_changed, self._lock = place.keys_changed, place.lock
        #: If other gateways may use the same database: how PostgreSQL's library finds it.
        self.shared_at = place.shared_at

    @classmethod
    async def open(cls, where: Path | Secret) -> Self:
        """Open the database in a file of SQLite, or at a URL of PostgreSQL, making its tables or
        bringing them up to date if need be.

        Raises :class:`StoreError`, also for one that a newer version of the gateway wrote.
        """
        database = await asyncio.to_thread(Database, where)  # a driver may have to be imported
        try:
            await database.open()
        except BaseException:
            await database.close()
            raise
        return cls(database)

    @property
    def is_shared(self) -> bool:
        """Whether other gateways may use the same database."""
        return self.shared_at is not None

    async def close(self) -> None:
        """Close it, after the transactions under way. May be called twice."""
        await self._database.close()

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
        """Return every key, revoked ones too, oldest first."""
        query = select(keys).order_by(keys.c.created, keys.c.id)
        return await self._read(lambda connection: [*map(_key_record, connection.execute(query))])

    async def add_key(self, record: KeyRecord) -> None:
        """Keep a new key. :class:`StoreError` if its id or hash is there already."""
        await self.add_keys((record,))

    async def add_keys(self, records: Iterable[KeyRecord]) -> None:
        """Keep new keys: all of them, or after an error none."""
        rows = [*map(_row, records)]
        if not rows:
            return

        def work(connection: Connection) -> None:
            connection.execute(insert(keys), rows)
            self._keys_changed(connection)

        await self._write(work)

    async def add_first_key(self, record: KeyRecord) -> bool:
        """Keep a key if there is none at all, revoked ones among them; return whether that is so.

        Of several gateways that start on one empty database, one is told so.
        """

        def work(connection: Connection) -> bool:
            self._lock(connection)
            if connection.execute(select(keys.c.id).limit(1)).first() is not None:
                return False
            connection.execute(insert(keys), [_row(record)])
            self._keys_changed(connection)
            return True

        return await self._write(work)

    async def update_key(self, key_id: str, **changes: Any) -> KeyRecord:
        """Change fields of a key, and return it as it is now. A key's id and hash never change."""
        if not changes or not changes.keys() <= CHANGEABLE:
            raise ValueError(f"cannot change {sorted(changes.keys() - CHANGEABLE) or 'nothing'}")
        values = {name: _plain(value) for name, value in changes.items()}

        def work(connection: Connection) -> Row[Any] | None:
            connection.execute(update(keys).where(keys.c.id == key_id).values(values))
            self._keys_changed(connection)
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
        rows = [{"key_id": key_id, "at": at} for key_id, at in sorted(last_activity.items())]
        await self._write(lambda connection: connection.execute(statement, rows))

    # --- usage -----------------------------------------------------------------------------

    async def add_usage(self, records: Iterable[DailyUsage]) -> None:
        """Add to the counters of each key, model and day, in one transaction."""
        rows = [
            {field.name: getattr(item, field.name) for field in fields(item)}
            # In one order: two gateways that add to the same ones must not wait for each other.
            for item in sorted(records, key=lambda item: (item.key_id, item.model, item.day))
        ]
        if not rows:
            return
        statement = self._insert(usage)
        statement = statement.on_conflict_do_update(
            index_elements=list(usage.primary_key),
            set_={name: usage.c[name] + statement.excluded[name] for name in USAGE_COUNTERS},
        )
        await self._write(lambda connection: connection.execute(statement, rows))

    async def usage_of(
        self, key_id: str | None = None, *, since: date | None = None
    ) -> list[DailyUsage]:
        """Return the counters of one key, or of all, from the day ``since`` on, ordered by day, key
        and model.
        """
        query = select(usage).order_by(usage.c.day, usage.c.key_id, usage.c.model)
        if key_id is not None:
            query = query.where(usage.c.key_id == key_id)
        if since is not None:
            query = query.where(usage.c.day >= since)
        return await self._read(
            lambda connection: [DailyUsage(**row._mapping) for row in connection.execute(query)]
        )

    # --- requests --------------------------------------------------------------------------

    async def add_requests(self, records: Iterable[tuple[Any, ...]]) -> None:
        """Keep requests that have ended, in one transaction: the fields of each
        :class:`PastRequest`. ``records`` is gone through off the event loop.
        """
        keep = add if self.shared_at is None else add_shared
        await self._write(lambda connection: keep(connection, records, self._mark))

    async def prune_requests(self, since: int, most: int, size: int | None) -> None:
        """Forget requests before the number ``since``, and the oldest beyond ``most`` of them, or
        beyond ``size`` bytes; a few in each transaction, so that others needn't wait.
        """
        mark = self._mark
        beyond = await self._read(lambda connection: first_beyond(connection, most, mark))
        large = None if size is None else await self._first_too_large(size)
        before = max(since, *(0 if first is None else first + 1 for first in (beyond, large)))
        deleted = DELETED_AT_ONCE
        while deleted == DELETED_AT_ONCE:
            deleted = await self._write(
                lambda connection: delete_some(connection, before, DELETED_AT_ONCE, mark)
            )

    async def _first_too_large(self, size: int) -> int | None:
        before, left = _END, size
        while True:
            some = partial(size_below, before=before, place=self._place)
            oldest, taken = await self._read(some)
            if oldest is None:
                return None
            if taken > left:
                cut = partial(first_too_large, before=before, size=left, place=self._place)
                return await self._read(cut)
            before, left = oldest, left - taken

    async def clear_requests(self) -> None:
        """Forget every request, of any age."""
        await self._write(clear)

    async def requests_of(self, wanted: RequestFilter) -> list[PastRequest]:
        """Return those that are ``wanted``, the newest first."""
        return await self._read(lambda connection: page(connection, wanted))

    # --- memory of models ------------------------------------------------------------------

    async def remember_memory(self, fingerprint: str, size: int) -> None:
        """Keep how many bytes a model took. ``fingerprint``: its file and what changes its size."""
        row = {"fingerprint": fingerprint, "bytes": size, "measured": datetime.now(UTC)}
        statement = self._insert(model_memory).values(row)
        statement = statement.on_conflict_do_update(
            index_elements=["fingerprint"],
            set_={name: statement.excluded[name] for name in ("bytes", "measured")},
        )
        await self._write(lambda connection: connection.execute(statement))

    async def known_memory(self) -> dict[str, int]:
        """Return bytes by fingerprint, for every model ever measured."""
        query = select(model_memory.c.fingerprint, model_memory.c.bytes)
        return await self._read(
            lambda connection: {row.fingerprint: row.bytes for row in connection.execute(query)}
        )


def _row(record: KeyRecord) -> dict[str, Any]:
    return {field.name: _plain(getattr(record, field.name)) for field in fields(record)}


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
