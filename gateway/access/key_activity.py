"""The last use of each key: requests note it in memory, and it is written to the store in
batches.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from gateway.errors import GatewayError
from gateway.tasks import cancel_and_wait, spawn_lasting

if TYPE_CHECKING:  # SQLAlchemy comes with it: see gateway.access.store
    from gateway.access.store import Store

#: Seconds between two writes of "last activity".
INTERVAL: Final = 10.0

_log = logging.getLogger(__name__)


class KeyActivity:
    """The last use of each key, and the task that writes it behind the requests."""

    def __init__(self, store: Store, *, interval: float = INTERVAL) -> None:
        self._store = store
        self._interval = interval
        # Seconds since 1970, by key id. `keep` bounds it: as many as there are keys.
        self._last_used: dict[str, float] = {}
        self._unwritten: set[str] = set()
        self._used = asyncio.Event()
        self._failing = False
        self._writer: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Write from now on: at most once in ``interval`` seconds, and nothing while idle."""
        self._writer = spawn_lasting(self._keep_writing, name="write key activity")

    async def close(self) -> None:
        """Write what is unwritten."""
        await cancel_and_wait(self._writer)
        await self._write()

    def touch(self, key_id: str, now: float) -> None:
        """Note that the key was used ``now``, in seconds since 1970."""
        self._last_used[key_id] = now
        if key_id not in self._unwritten:
            self._unwritten.add(key_id)
            self._used.set()

    def last_used(self, key_id: str) -> datetime | None:
        """Return when the key was last used, as far as this process knows."""
        seconds = self._last_used.get(key_id)
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

    def keep(self, key_ids: Container[str]) -> None:
        """Forget all other keys."""
        for gone in [key_id for key_id in self._last_used if key_id not in key_ids]:
            del self._last_used[gone]
            self._unwritten.discard(gone)

    async def _keep_writing(self) -> None:
        while True:
            await self._used.wait()
            # The batch: what else is used in this time goes along.
            await asyncio.sleep(self._interval)
            await self._write()

    async def _write(self) -> None:
        """Write unwritten activity; what fails stays unwritten, and is tried with the next."""
        batch, self._unwritten = self._unwritten, set()
        self._used.clear()
        if not batch:
            return
        activity = {key: used for key in batch if (used := self.last_used(key)) is not None}
        try:
            await self._store.touch_keys(activity)
        except BaseException as error:
            self._unwritten |= batch & self._last_used.keys()
            if self._unwritten:
                self._used.set()
            if not isinstance(error, Exception):
                raise
            if not self._failing:
                trace = None if isinstance(error, GatewayError) else error
                _log.error(
                    "when keys were last used cannot be written, trying again: %s",
                    error,
                    exc_info=trace,
                )
            self._failing = True
        else:
            if self._failing:
                _log.info("when keys were last used is written again")
            self._failing = False
