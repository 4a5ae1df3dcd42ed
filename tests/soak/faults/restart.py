"""The gateway is restarted, as a service manager does it: the socket stays open."""

from __future__ import annotations

from tests.soak.faults.driver import Driver, Strike


async def _strike(strike: Strike) -> None:
    door = strike.door
    async with door.alone:
        with strike.ledger.in_force(door.name, "restart", after=1):
            await door.end()
            await door.start()


DRIVER = Driver(every=60, strike=_strike, meant_for=lambda kind: kind.restarts)
