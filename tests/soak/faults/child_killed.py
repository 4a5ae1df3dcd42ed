"""A llama-server is killed (SIGKILL), as the kernel does when memory runs out."""

from __future__ import annotations

import contextlib
import os
import signal

from tests.soak.asking import MODELS, chat
from tests.soak.faults.driver import Driver, Strike


async def _strike(strike: Strike) -> None:
    door, model = strike.door, strike.chance.choice(MODELS)
    async with door.alone:
        pid = await door.child(model)
        if pid is None:
            return
        with strike.ledger.in_force(door.name, "child killed", after=1):
            with contextlib.suppress(ProcessLookupError):  # it was swapped out just now
                os.kill(pid, signal.SIGKILL)
            await ask_on(strike, model)


async def ask_on(strike: Strike, model: str) -> None:
    """Ask ``model`` once, which waits until it is loaded again."""
    door = strike.door
    asked = chat(strike.chance, door.key, model, "whole")
    door.tally.note(door.name, asked, await door.ask(asked.data))


DRIVER = Driver(every=40, strike=_strike)
