"""models.json changes, is broken for a while, or the gateway is told to read everything again."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

from tests.soak.faults.driver import Driver, Strike


def _write(strike: Strike, text: str) -> None:
    file = strike.door.data / "models.json"
    unfinished = file.with_suffix(".new")
    unfinished.write_text(text)
    unfinished.replace(file)


async def _told(strike: Strike) -> None:
    """SIGHUP; not while the gateway starts, whom it would end."""
    async with strike.door.alone:
        strike.door.send_signal(signal.SIGHUP)


async def _described(strike: Strike) -> None:
    """A change that no llama-server is concerned with."""
    _write(strike, _entries(strike, description=f"change {strike.chance.random()}"))


async def _started_anew(strike: Strike) -> None:
    """A change that each llama-server is to be started anew for."""
    _write(strike, _entries(strike, env={"SOAK_CHANGE": str(strike.chance.random())}))


async def _broken(strike: Strike) -> None:
    """Half a file, for as long as somebody edits it: the last good one stays in use.

    Not while the gateway starts, which it doesn't without a good one.
    """
    async with strike.door.alone:
        text = (strike.door.data / "models.json").read_text()
        _write(strike, text[: len(text) // 2])
        await asyncio.sleep(2)
        _write(strike, text)


def _entries(strike: Strike, **more: Any) -> str:
    return json.dumps(strike.door.models(**more))


_WAYS = (_told, _described, _started_anew, _broken)


async def _strike(strike: Strike) -> None:
    with strike.ledger.in_force(strike.door.name, "reload", after=2):
        await strike.chance.choice(_WAYS)(strike)


DRIVER = Driver(every=15, strike=_strike)
