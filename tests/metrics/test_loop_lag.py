"""The event loop's lag is measured while somebody scrapes, and only then."""

from __future__ import annotations

import asyncio
import time

from gateway.metrics.loop_lag import EVERY, LoopLag


async def test_what_keeps_the_loop_busy_is_seen() -> None:
    lag = LoopLag()
    assert not lag.measures
    assert lag.look().counts[-1] == 0
    try:
        async with asyncio.timeout(30):
            time.sleep(EVERY + 0.3)
            while not (seen := lag.look()).counts[-1]:
                await asyncio.sleep(0.01)
    finally:
        lag.close()
    assert seen.total >= 0.25
    assert seen.counts[seen.bounds.index(0.1)] < seen.counts[-1]
    assert not lag.measures


async def test_nobody_scrapes_and_nothing_is_measured() -> None:
    lag = LoopLag(goes_on=0.1)
    lag.look()
    async with asyncio.timeout(30):
        while lag.measures:
            await asyncio.sleep(0.05)
    before = lag.look().counts[-1]
    assert before == 1
    assert lag.measures  # again
    lag.close()
