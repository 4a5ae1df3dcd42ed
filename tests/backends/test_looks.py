"""The scheduler and its looks at the memory: how many, and what may happen during one."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from gateway.backends.accounts import Accounts
from gateway.backends.capacity import Capacity
from gateway.backends.decision import SchedulingLimits
from gateway.backends.devices import Device
from gateway.backends.lease import Lease
from gateway.backends.machine import Machine
from gateway.backends.memory import Needs
from gateway.backends.ram import RAM
from gateway.backends.scheduler import Scheduler
from gateway.errors import GatewayError
from gateway.models.local_model import LocalModel
from gateway.tasks import spawn
from tests.scripted import Box, catalog_of

GIB = 2**30


class Looks:
    """How often was looked; each look takes until ``go`` is set."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._began = asyncio.Event()
        self.count = 0
        self.go = threading.Event()
        self.go.set()

    def read(self) -> Machine:
        self.count += 1
        self._loop.call_soon_threadsafe(self._began.set)
        self.go.wait(10)
        return Machine((Device(RAM, "RAM", 32 * GIB, 30 * GIB, GIB),), "RAM")

    async def reach(self, count: int) -> None:
        """Wait until so many have begun."""
        async with asyncio.timeout(10):
            while self.count < count:
                self._began.clear()
                await self._began.wait()


Make = Callable[..., Scheduler]


@pytest.fixture
async def looks() -> Looks:
    return Looks()


@pytest.fixture
async def make(box: Box, looks: Looks) -> AsyncIterator[Make]:
    made: list[Scheduler] = []

    async def remember(key: str, size: int) -> None:
        pass

    def make(*specs: LocalModel) -> Scheduler:
        scheduler = Scheduler(
            catalog_of(*specs),
            box.environment(),
            SchedulingLimits(),
            queue_size=100,
            queue_timeout=10.0,
        )
        accounts = Accounts(Needs(box.folder, {}, remember), Capacity(looks.read, None), {})
        scheduler.watch_memory(accounts, SchedulingLimits())
        made.append(scheduler)
        return scheduler

    yield make
    looks.go.set()
    for scheduler in made:
        await scheduler.close()
        assert all(s.queued == 0 and s.pid is None for s in scheduler.status())


def ask(scheduler: Scheduler, model: str) -> asyncio.Task[Lease]:
    return spawn(scheduler.lease(model), name=f"lease {model}")


async def test_one_look_is_for_all_who_wait(make: Make, box: Box, looks: Looks) -> None:
    names = [f"m{number}" for number in range(10)]
    scheduler = make(*(box.spec(name, memory=GIB) for name in names))
    looks.go.clear()
    first = ask(scheduler, names[0])
    await looks.reach(1)
    others = [ask(scheduler, name) for name in names * 5]
    await asyncio.sleep(0.05)  # nothing must happen meanwhile
    assert looks.count == 1  # never two at a time
    looks.go.set()
    for lease in (first, *others):
        (await asyncio.wait_for(lease, 20)).release()
    assert looks.count <= 3  # the first was too early for the others


@pytest.mark.parametrize("what", ["unload", "gone", "changed", "hung up", "close"])
@pytest.mark.parametrize("ticks", [0, 1, 2, None])
async def test_whatever_happens_during_a_look_ends_well(
    make: Make, box: Box, looks: Looks, what: str, ticks: int | None
) -> None:
    """Of the same model; another one is loaded all the same."""
    a, b = box.spec("a", memory=GIB), box.spec("b", memory=GIB)
    scheduler = make(a, b)
    looks.go.clear()
    waiting, other = ask(scheduler, "a"), ask(scheduler, "b")
    if ticks is None:
        await looks.reach(1)
    else:
        for _ in range(ticks):
            await asyncio.sleep(0)
    changed = replace_memory(a)
    match what:
        case "unload":
            await asyncio.wait_for(scheduler.unload("a"), 5)
        case "gone":
            scheduler.apply(catalog_of(b))
        case "changed":
            scheduler.apply(catalog_of(changed, b))
        case "hung up":
            waiting.cancel()
        case "close":
            await asyncio.wait_for(scheduler.close(), 5)
    looks.go.set()
    (outcome,) = await asyncio.wait_for(asyncio.gather(waiting, return_exceptions=True), 10)
    if what == "close":
        await asyncio.gather(other, return_exceptions=True)
        return
    (await asyncio.wait_for(other, 10)).release()
    if what == "hung up":
        assert isinstance(outcome, asyncio.CancelledError)
    elif isinstance(outcome, Lease):
        # In the first tick nobody had asked yet whom an unload would send away.
        assert what == "changed" or (what == "unload" and ticks == 0)
        outcome.release()
    else:
        assert isinstance(outcome, GatewayError)
    if what != "gone":
        (await asyncio.wait_for(ask(scheduler, "a"), 10)).release()


def replace_memory(spec: LocalModel) -> LocalModel:
    return replace(spec, memory=2 * GIB)


async def test_a_report_does_not_wait_for_a_look_that_takes_long(
    make: Make, box: Box, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.backends.model_memory.REPORT_WAITS", 0.1)
    scheduler = make(box.spec("a", memory=GIB))
    (await scheduler.lease("a")).release()
    await scheduler.unload("a")
    seen = looks.count
    looks.go.clear()
    async with asyncio.timeout(2):
        await scheduler.see_memory(within=0)
        await scheduler.see_memory(within=0)
    assert looks.count == seen + 1
    asking = ask(scheduler, "a")
    looks.go.set()
    (await asyncio.wait_for(asking, 10)).release()


async def test_a_model_whose_need_cannot_be_told_is_loaded_all_the_same(
    make: Make, box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    """Or its load says what is wrong; nobody waits until the queue's time is up."""
    spec = box.spec("a", memory=GIB)
    params = replace(spec.params, model="a\0b.gguf")
    odd = replace(spec, params=params, memory=None)
    scheduler = make(odd)
    with pytest.raises(GatewayError):
        await asyncio.wait_for(scheduler.lease("a"), 5)


async def test_a_pipe_in_place_of_a_model_is_not_read(make: Make, box: Box) -> None:
    os.mkfifo(box.folder / "pipe.gguf")
    spec = box.spec("a", memory=GIB)
    params = replace(spec.params, model=str(box.folder / "pipe.gguf"))
    scheduler = make(replace(spec, params=params, memory=None))
    with pytest.raises(GatewayError):
        await asyncio.wait_for(scheduler.lease("a"), 5)
