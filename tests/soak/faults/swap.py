"""A model is asked for of which there is room only where another one goes."""

from __future__ import annotations

import asyncio

from tests.soak.asking import SWAPPED_IN
from tests.soak.faults.child_killed import ask_on
from tests.soak.faults.driver import Driver, Strike


async def _strike(strike: Strike) -> None:
    with strike.ledger.in_force(strike.door.name, "swap", after=3):
        await asyncio.gather(*(ask_on(strike, SWAPPED_IN) for _ in range(4)))


DRIVER = Driver(every=20, strike=_strike)
