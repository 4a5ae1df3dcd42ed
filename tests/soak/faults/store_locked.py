"""Another program writes to the database, and doesn't come to an end."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3

from tests.soak.faults.driver import Driver, Strike


async def _strike(strike: Strike) -> None:
    door = strike.door
    async with door.alone:
        file = door.data / "gateway.db"
        with (
            strike.ledger.in_force(door.name, "store locked", after=15),
            contextlib.closing(sqlite3.connect(file, isolation_level=None, timeout=5)) as store,
        ):
            store.execute("BEGIN EXCLUSIVE")
            await asyncio.sleep(strike.seconds(2, 20))
            store.execute("ROLLBACK")


DRIVER = Driver(every=100, strike=_strike)
