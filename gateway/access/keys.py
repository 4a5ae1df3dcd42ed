"""All API keys, over the store that keeps them: making, changing, revoking and importing them.

Requests are checked against memory only (:mod:`gateway.access.key_lookup`). The store is read at
the start and on reload, and written when a key changes; when a key was last used is written in
batches, behind the requests.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import string
import time
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.access.key_activity import INTERVAL, KeyActivity
from gateway.access.key_format import hash_key, new_key
from gateway.access.key_lookup import KeyLookup
from gateway.access.key_schema import check_default, checked, state_of
from gateway.access.rate_limits import NO_LIMITS, KeyLimits
from gateway.errors import BadRequest, NotFound

if TYPE_CHECKING:  # SQLAlchemy comes with it: see gateway.access.store
    from gateway.access.legacy_keys import LegacyFile
    from gateway.access.store import KeyRecord, Store

_ID_CHARS = string.digits + string.ascii_lowercase
_KEY_ID = re.compile(r"k_[0-9a-z]{8}")


@dataclass(frozen=True, slots=True)
class ImportReport:
    """The result of importing an old key file. Its texts name entries, never keys."""

    imported: tuple[KeyRecord, ...]
    skipped: tuple[str, ...]
    warnings: tuple[str, ...]


class KeyRing:
    """All keys, in memory, over a store that it owns. Made by :meth:`open`, ended by :meth:`close`.

    :attr:`lookup` and ``touch`` are for each request: a few microseconds, no waiting. What changes
    keys writes to the store, one at a time.
    """

    def __init__(self, store: Store, *, write_every: float = INTERVAL) -> None:
        self._store = store
        self._changing = asyncio.Lock()
        self._records: dict[str, KeyRecord] = {}
        #: The keys as requests look them up.
        self.lookup = KeyLookup()
        self._activity = KeyActivity(store, interval=write_every)
        #: Called with the ids of all keys that are not revoked, when they may have changed.
        self.changed: Callable[[Collection[str]], None] = lambda key_ids: None

    @classmethod
    async def open(cls, store: Store, *, write_every: float = INTERVAL) -> KeyRing:
        """Return the ring of the keys in ``store``, which it closes in the end, or on an error."""
        ring = cls(store, write_every=write_every)
        try:
            await ring.reload()
        except BaseException:
            await store.close()
            raise
        ring._activity.start()
        return ring

    async def close(self) -> None:
        """Write what is unwritten, and close the store."""
        self.lookup.close()
        try:
            await self._activity.close()
        finally:
            await self._store.close()

    @property
    def records(self) -> tuple[KeyRecord, ...]:
        """Every key, revoked ones too, oldest first, with the last activity of this moment."""
        return tuple(
            record
            if (used := self._activity.last_used(record.id)) is None
            else replace(record, last_activity=used)
            for record in self._records.values()
        )

    def name_of(self, key_id: str) -> str | None:
        """Return the name of a key, of a revoked one too; ``None``: there is no such key."""
        record = self._records.get(key_id)
        return None if record is None else record.name

    def named(self, name: str) -> frozenset[str]:
        """Return the ids of all keys of that name."""
        return frozenset(record.id for record in self._records.values() if record.name == name)

    def record(self, key_id: str) -> KeyRecord | None:
        """Return a key as it is kept, or ``None``."""
        return self._records.get(key_id)

    def limits_of(self, key_id: str) -> KeyLimits:
        """Return the limits of a key; of one that isn't there: none."""
        record = self._records.get(key_id)
        return KeyLimits(**record.limits) if record is not None and record.limits else NO_LIMITS

    def touch(self, key_id: str, now: float | None = None) -> None:
        """Remember that the key was used now. Written later; ids of no key are ignored."""
        if key_id in self._records:
            self._activity.touch(key_id, now or time.time())

    # --- changes ---------------------------------------------------------------------------

    async def reload(self) -> None:
        """Take the keys from the store again: the command line may have changed it."""
        async with self._changing:
            self._install(await self._store.list_keys())

    async def create(
        self,
        name: str,
        description: str = "",
        **fields: Any,
    ) -> tuple[KeyRecord, str]:
        """Make a key. It is the second thing returned, and kept nowhere: show it now or never.

        ``fields``: others of :mod:`gateway.access.key_schema`, as a record calls them. Raises
        :class:`BadRequest` for values that can't be used.
        """
        kept = checked({"name": name, "description": description, **fields})
        check_default(kept.get("personalities"), kept.get("default_personality"))
        async with self._changing:
            record, key = self._new(kept)
            await self._store.add_key(record)
            self._install([*self._records.values(), record])
        return record, key

    async def create_first(self, name: str, description: str, **fields: Any) -> str | None:
        """Make a key if there is none at all, whoever else is about to; ``None``: there is one.

        See :meth:`create`. Keys that others have made meanwhile are taken up.
        """
        kept = checked({"name": name, "description": description, **fields})
        async with self._changing:
            record, key = self._new(kept)
            made = await self._store.add_first_key(record)
            self._install(await self._store.list_keys())
        return key if made else None

    def _new(self, kept: Mapping[str, Any]) -> tuple[KeyRecord, str]:
        from gateway.access.store import KeyRecord

        key = new_key()
        now, digest = datetime.now(UTC), hash_key(key).hex()
        return KeyRecord(id=_free_id(self._records), hash=digest, created=now, **kept), key

    async def change(
        self, key_id: str, changes: Mapping[str, Any], *, force: bool = False
    ) -> KeyRecord:
        """Change fields of a key, from the next request on; what isn't named stays.

        The fields are those of :meth:`create`; of ``limits`` too, only those named change.
        Raises :class:`BadRequest`, also where without ``force`` no admin key would be left.
        """
        async with self._changing:
            record = await self._fresh(key_id)
            if record.revoked is not None:
                raise BadRequest(f"{key_id} has been revoked: make another", code="key_revoked")
            if isinstance(limits := changes.get("limits"), Mapping):
                changes = {**changes, "limits": {**(record.limits or {}), **limits}}
            fields = checked(changes)
            if not fields:
                return record
            after = replace(record, **fields)
            check_default(after.personalities, after.default_personality)
            self._keep_an_admin(after, force=force)
            return await self._update(key_id, fields)

    async def revoke(self, key_id: str, *, force: bool = False) -> KeyRecord:
        """End a key, at once and for good. Revoking it again changes nothing.

        The last admin key that still works is refused without ``force``: nobody could unload a
        model any more.
        """
        async with self._changing:
            record = await self._fresh(key_id)
            if record.revoked is not None:
                return record
            now = datetime.now(UTC)
            self._keep_an_admin(replace(record, revoked=now), force=force)
            return await self._update(key_id, {"revoked": now})

    async def _fresh(self, key_id: str) -> KeyRecord:
        """Return the key as it is in the store now; the command line may have changed it."""
        self._install(await self._store.list_keys())
        record = self._records.get(key_id)
        if record is None:
            # What isn't an id isn't repeated: it may be a key.
            shown = key_id if _KEY_ID.fullmatch(key_id) else "like that"
            raise NotFound(
                f"there is no key with an id {shown}: `llm-gateway keys list` shows them",
                code="key_not_found",
            )
        return record

    def _keep_an_admin(self, changed: KeyRecord, *, force: bool) -> None:
        """Raise if the last admin key that works would be none any more."""
        now = datetime.now(UTC)
        admins = [old.id for old in self._records.values() if _is_working_admin(old, now)]
        if admins == [changed.id] and not _is_working_admin(changed, now) and not force:
            raise BadRequest(
                f"{changed.id} is the last admin key that works: make another first, or insist "
                "with --force (over HTTP ?force=true)",
                code="last_admin_key",
            )

    async def _update(self, key_id: str, fields: Mapping[str, Any]) -> KeyRecord:
        record = await self._store.update_key(key_id, **fields)
        self._install([record if old.id == key_id else old for old in self._records.values()])
        return record

    async def import_legacy(self, path: Path, *, admin: bool = True) -> ImportReport:
        """Take over the keys of the old system's ``authKeys.json``: all of them or none.

        LLM-API had no roles: any key could load a model. So each key becomes an admin key; with
        ``admin=False`` none does. Keys that are here already are skipped. Raises
        :class:`gateway.problems.InvalidFiles` if anything in the file isn't understood.
        """
        from gateway.access.legacy_keys import read_legacy
        from gateway.access.store import KeyRecord

        file: LegacyFile = await asyncio.to_thread(read_legacy, path)
        async with self._changing:
            self._install(await self._store.list_keys())
            known = {record.hash: record.id for record in self._records.values()}
            skipped = list(file.skipped)
            added: dict[str, KeyRecord] = {}
            now = datetime.now(UTC)
            for old in file.keys:
                digest = hash_key(old.key).hex()
                if (same := known.get(digest)) is not None:
                    skipped.append(f"{old.label}: is here already, as {same}")
                    continue
                record = KeyRecord(
                    id=_free_id({**self._records, **added}),
                    hash=digest,
                    name=old.name,
                    description=old.description,
                    admin=admin,
                    created=old.created or now,
                    last_activity=old.last_activity,
                    imported=True,
                )
                added[record.id] = record
                known[digest] = record.id
            await self._store.add_keys(added.values())
            self._install([*self._records.values(), *added.values()])
        return ImportReport(tuple(added.values()), tuple(skipped), file.warnings)

    # --- below -----------------------------------------------------------------------------

    def _install(self, records: Iterable[KeyRecord]) -> None:
        """Make ``records`` the keys, in one step as seen by requests."""
        in_order = sorted(records, key=lambda record: (record.created, record.id))
        self.lookup.install(in_order)
        self._records = {record.id: record for record in in_order}
        self._activity.keep(self._records)
        self.changed({record.id for record in in_order if record.revoked is None})
        self.lookup.rights_changed()


def _free_id(taken: Container[str]) -> str:
    while True:
        key_id = "k_" + "".join(secrets.choice(_ID_CHARS) for _ in range(8))
        if key_id not in taken:
            return key_id


def _is_working_admin(record: KeyRecord, now: datetime) -> bool:
    return record.admin and state_of(record, now) == "ok"
