"""A llama-server hangs (SIGSTOP): it goes on after a while, or the watchdog replaces it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from tests.harness import alive
from tests.soak.asking import MODELS
from tests.soak.faults.child_killed import ask_on
from tests.soak.faults.driver import Driver, Strike

#: Seconds until the watchdog must have noticed (it looks on for 20).
_NOTICED = 60.0


async def _goes_on(strike: Strike, pid: int) -> None:
    await asyncio.sleep(strike.seconds(0.2, 4))
    _signal(pid, signal.SIGCONT)


async def _replaced(strike: Strike, pid: int) -> None:
    try:
        async with asyncio.timeout(_NOTICED):
            while alive(pid):
                await asyncio.sleep(0.1)
    except TimeoutError:
        strike.door.tally.breach(f"{strike.door.name}: a frozen llama-server was not replaced")
        _signal(pid, signal.SIGCONT)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it was swapped out, or its gateway has ended
        os.kill(pid, number)


def _freezing(until: Callable[[Strike, int], Awaitable[None]]) -> Callable[[Strike], Any]:
    async def strike_(strike: Strike) -> None:
        door, model = strike.door, strike.chance.choice(MODELS)
        pid = await door.child(model)
        if pid is None:
            return
        with strike.ledger.in_force(door.name, "child frozen", after=1):
            _signal(pid, signal.SIGSTOP)
            await until(strike, pid)
            await ask_on(strike, model)

    return strike_


GOES_ON = Driver(every=60, strike=_freezing(_goes_on))
#: Takes half a minute.
REPLACED = Driver(every=200, strike=_freezing(_replaced))
