"""No file of the gateway's may grow (RLIMIT_FSIZE), as on a full disk."""

from __future__ import annotations

import asyncio
import resource

from tests.soak.faults.driver import Driver, Strike


async def _strike(strike: Strike) -> None:
    door = strike.door
    async with door.alone:
        _, most = resource.prlimit(door.pid, resource.RLIMIT_FSIZE)
        with strike.ledger.in_force(door.name, "disk full", after=15):
            resource.prlimit(door.pid, resource.RLIMIT_FSIZE, (0, most))
            await asyncio.sleep(strike.seconds(3, 15))
            resource.prlimit(door.pid, resource.RLIMIT_FSIZE, (most, most))


DRIVER = Driver(every=100, strike=_strike)
