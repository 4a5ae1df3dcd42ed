"""The gateway is killed (SIGKILL), with all that runs; the next one finds what it left."""

from __future__ import annotations

import signal

from tests.soak.faults.driver import Driver, Strike


async def _strike(strike: Strike) -> None:
    door = strike.door
    async with door.alone:
        with strike.ledger.in_force(door.name, "gateway killed", after=1):
            await door.end(signal.SIGKILL)
            await door.start()


DRIVER = Driver(every=240, strike=_strike, meant_for=lambda kind: kind.restarts)
