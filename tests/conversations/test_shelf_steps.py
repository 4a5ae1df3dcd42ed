"""No step of the event loop is long, with ten thousand saved conversations either."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from pathlib import Path

import pytest

from gateway.conversations.chain import Chain
from gateway.conversations.facts import written
from gateway.conversations.files import CacheFiles
from gateway.conversations.index import Saved
from gateway.conversations.reported import reported
from gateway.conversations.shelf import Shelf
from gateway.conversations.store import HereStore
from gateway.tasks import cancel_and_wait, spawn

MANY, LINKS = 10_000, 30
#: Seconds of its own that a round may take: a good deal less, on a machine with nothing else to do.
LONGEST = 0.02


def saved(number: int, dice: random.Random) -> Saved:
    chain = Chain(tuple(dice.randbytes(16) for _ in range(LINKS)), tuple(range(LINKS)))
    now = time.time()
    age = dice.random() * 1e6
    return Saved(f"{number:024x}", "m", "f", "k", chain, 1000, 900, 5.0, now, now - age, 10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("cache")
    made.chmod(0o700)
    dice = random.Random(1)
    for number in range(MANY):
        one = saved(number, dice)
        (made / f"{one.name}.json").write_bytes(written(one))
        (made / f"{one.name}.kv").write_bytes(b"x" * one.size)
    return made


class Steps:
    """Measures the rounds of the event loop, in seconds of its thread."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._task = spawn(self._measure(), name="measure steps")

    async def _measure(self) -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0)
            self.longest = max(self.longest, time.thread_time() - began)

    async def since(self) -> float:
        """The longest since the last call."""
        await asyncio.sleep(0)
        longest, self.longest = self.longest, 0.0
        return longest

    async def end(self) -> None:
        await cancel_and_wait(self._task)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_no_step_of_the_event_loop_is_long(folder: Path) -> None:
    shelf = Shelf(HereStore(CacheFiles(folder, "auto")), max_age=3e7, min_tokens=1)
    steps, took = Steps(), dict[str, float]()

    await steps.since()
    await shelf.open()
    took["open"] = await steps.since()
    gc.disable()  # gateway.server keeps it from what was found, and lets it look seldom
    await steps.since()
    shelf.forget(goes=lambda one: one.owner == "nobody")
    took["look for what isn't there"] = await steps.since()
    going = shelf.forget(goes=lambda one: one.name < f"{MANY // 2:024x}")
    await shelf.removed()
    took["forget half"] = await steps.since()
    shelf.switch_off("m", "f", "it is odd")
    await shelf.removed()
    took["forget the rest"] = await steps.since()
    left = (await reported(shelf, {})).conversations
    took["report"] = await steps.since()
    await shelf.close()
    took["close"] = await steps.since()
    await steps.end()
    gc.enable()
    assert (going, left, [*folder.glob("*.kv")]) == (MANY // 2, 0, [])
    assert {name: step for name, step in took.items() if step > LONGEST} == {}
