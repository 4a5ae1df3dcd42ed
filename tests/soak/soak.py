"""The soak: ordinary clients, what goes wrong beside them, and what is looked at meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.soak.allowed import Ledger
from tests.soak.asking import any_request
from tests.soak.crowd import Crowd
from tests.soak.door import KINDS, Door, Kind, doors
from tests.soak.faults import (
    certificate,
    child_frozen,
    child_killed,
    disk_full,
    gateway_killed,
    hang_up,
    key_revoked,
    reload,
    restart,
    store_locked,
    swap,
)
from tests.soak.faults.driver import Driver, Strike
from tests.soak.left import Held, at_most, check_counted, check_folder, check_idle, load
from tests.soak.measures import resident, slope
from tests.soak.tally import Tally

DRIVERS: Final = (
    hang_up.DRIVER,
    key_revoked.DRIVER,
    reload.DRIVER,
    swap.DRIVER,
    certificate.DRIVER,
    child_killed.DRIVER,
    restart.DRIVER,
    child_frozen.GOES_ON,
    child_frozen.REPLACED,
    disk_full.DRIVER,
    store_locked.DRIVER,
    gateway_killed.DRIVER,
)
#: Requests of each door before anything is measured.
_WARM_UP: Final = 100
#: The part of a run that memory may need to settle; seconds of a run from which on its slope is
#: judged; and megabytes an hour that it may have.
_SETTLING: Final = 1 / 3
_LONG: Final = 600.0
_FLAT: Final = 30.0


class Soak:
    """One run. ``rate``: requests a second in all. ``pace``: how many times as often as usual
    things go wrong.
    """

    def __init__(
        self,
        seconds: float,
        rate: float,
        pace: float,
        seed: int,
        *,
        kinds: Sequence[Kind] = KINDS,
        drivers: Sequence[Driver] = DRIVERS,
    ) -> None:
        self._kinds = kinds
        self.seconds = seconds
        self._drivers = drivers
        self.ledger = Ledger()
        self.tally = Tally(self.ledger)
        self.lines: list[str] = []
        self._rate = rate
        self._pace = pace
        self._chance = random.Random(seed)
        self._memory: dict[str, list[tuple[float, float]]] = {}
        self._over = asyncio.Event()

    async def run(self, folder: Path) -> None:
        """Do all of it; the breaches are in :attr:`tally`, and the figures in :attr:`lines`."""
        with doors(self._kinds, folder, self.tally) as all_:
            first = dict(zip(all_, await asyncio.gather(*map(self._begin, all_)), strict=True))
            began = time.monotonic()
            async with contextlib.AsyncExitStack() as stack:
                for door in all_:
                    crowd = Crowd(door, self._rate / len(all_), self._chance)
                    await stack.enter_async_context(crowd.asking())
                await self._go_wrong(all_)
            took = time.monotonic() - began
            self.lines.append(f"{took:.0f} s, {self.tally.requests / took:.0f} requests a second")
            await asyncio.gather(*(self._finish(door, first[door]) for door in all_))
        faults = ", ".join(f"{count} x {what}" for what, count in self.ledger.count.most_common())
        self.lines += [f"faults: {faults}", *self._memory_lines(), *self.tally.lines()]

    async def _begin(self, door: Door) -> Held:
        await door.start()
        await load(door)
        for _ in range(_WARM_UP):
            asked = any_request(self._chance, door.key)
            door.tally.note(door.name, asked, await door.ask(asked.data))
        return await at_most(door)

    async def _go_wrong(self, all_: list[Door]) -> None:
        """Bring faults about until the time is over, and wait until the last are."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell(), name="tell how far it is")
            for door in all_:
                group.create_task(self._measure(door), name=f"measure {door.name}")
                for driver in self._drivers:
                    if driver.meant_for(door.kind):
                        group.create_task(self._drive(driver, door))
            await asyncio.sleep(self.seconds)
            self._over.set()

    async def _drive(self, driver: Driver, door: Door) -> None:
        chance = random.Random(self._chance.random())
        every = driver.every / self._pace
        # Each at least once, however short the run is.
        pause = chance.uniform(0.1, 0.8) * min(every, self.seconds)
        while not await self._is_over(pause):
            await self._strike(driver, Strike(door, self.ledger, chance, max(self._pace, 1.0)))
            pause = chance.uniform(0.6, 1.4) * every

    async def _strike(self, driver: Driver, strike: Strike) -> None:
        door, began = strike.door, time.monotonic()
        try:
            await driver.strike(strike)
        except Exception as error:
            faults = self.ledger.faults(door.name, began, time.monotonic())
            if not (isinstance(error, OSError) and "gateway killed" in faults):
                what = driver.strike.__module__.rpartition(".")[2]
                self.tally.breach(f"{door.name}: {what}: {error!r}", traceback.format_exc())

    async def _is_over(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()
        return self._over.is_set()

    async def _measure(self, door: Door) -> None:
        while not await self._is_over(1):
            if not door.kind.restarts and (size := resident(door.pid)):
                samples = self._memory.setdefault(door.name, [])
                samples.append((time.monotonic() / 3600, size / 1e6))

    async def _tell(self) -> None:
        """Print once a minute how far it is: whoever waits for an hour wants to see it."""
        began = time.monotonic()
        while not await self._is_over(60):
            memory = [f"{name} {each[-1][1]:.1f} MB" for name, each in self._memory.items()]
            minutes = (time.monotonic() - began) / 60
            print(
                f"{minutes:.0f} min, {self.tally.requests} requests", *memory, sep=", ", flush=True
            )

    async def _finish(self, door: Door, first: Held) -> None:
        await load(door)
        last = await check_idle(door, first)
        if not door.kind.restarts:
            await check_counted(door)
        await door.end()
        check_folder(door)
        self.lines.append(f"{door.name}: idle at first {first}; at last {last}")
        self.lines.append(f"{door.name}: {door.generations} gateways, one after the other")

    def _memory_lines(self) -> Iterator[str]:
        for name, samples in self._memory.items():
            settled = samples[int(len(samples) * _SETTLING) :]
            grows = slope(settled)
            if grows > _FLAT and self.seconds >= _LONG:
                self.tally.breach(f"{name}: memory grows", f"{grows:.1f} MB an hour")
            yield (
                f"{name}: memory {samples[0][1]:.1f} MB at first, {settled[0][1]:.1f} when "
                f"settled, {samples[-1][1]:.1f} at last, slope {grows:+.1f} MB/h"
            )
