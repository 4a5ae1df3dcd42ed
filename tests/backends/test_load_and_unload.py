"""Loading and unloading on request, and a models.json that changes."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from gateway.backends.backend import State
from gateway.errors import LoadFailed, ModelNotFound, Unavailable
from gateway.tasks import spawn
from gateway.upstream import UpstreamRequest
from tests.backends.conftest import MakeScheduler
from tests.schedulers import ask, fails, queued, states, status, use
from tests.scripted import Box, alive, catalog_of, gone, says, until

# --- load and unload -----------------------------------------------------------------------


async def test_loaded_model_is_ready_and_unloaded_one_is_gone(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a"))
    await scheduler.unload("a")
    await scheduler.load("a")
    await scheduler.load("a")
    pid = status(scheduler, "a").pid
    assert alive(pid)
    await scheduler.unload("a")
    assert not alive(pid)
    assert states(scheduler) == {"a": "stopped"}
    assert len(box.starts()) == 1
    await use(scheduler)  # being unloaded is no lasting state


async def test_unloading_waits_for_what_runs_and_lets_nobody_in(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a", parallel=2))
    running = await scheduler.lease("a")
    unloading = spawn(scheduler.unload("a"), name="unload")
    await asyncio.sleep(0)
    assert scheduler.try_lease("a") is None
    late = ask(scheduler)
    await queued(scheduler, "a", 1)
    assert not unloading.done()
    running.release()
    await unloading
    (await late).release()  # it has come back for this one
    assert [start["beside"] for start in box.starts()] == [[], []]


@pytest.mark.parametrize("ticks", [*range(8), None])
async def test_unloading_at_any_moment_of_a_load_ends_it(
    make_scheduler: MakeScheduler, box: Box, ticks: Any
) -> None:
    scheduler = make_scheduler(box.spec("a", start_delay=0.05))
    loading = spawn(scheduler.load("a"), name="load")
    await asyncio.sleep(0)  # it has begun
    if ticks is None:
        await says(scheduler.backend("a"))
    else:
        for _ in range(ticks):
            await asyncio.sleep(0)
    async with asyncio.timeout(10):  # and not wait_for(), which before 3.12 begins a tick later
        await scheduler.unload("a")
    assert "was unloaded while it was loading" in (await fails(loading, Unavailable)).message
    assert states(scheduler) == {"a": "stopped"}
    assert box.alive() == []
    await asyncio.wait_for(scheduler.load("a"), 10)
    assert scheduler.loaded() == ["a"]


@pytest.mark.parametrize("why", ["its need is looked up", "another has the room"])
async def test_unloading_before_a_load_can_begin_takes_it_back(
    make_scheduler: MakeScheduler, box: Box, why: str
) -> None:
    scheduler = make_scheduler(
        box.spec("a"), box.spec("b"), max_loaded=1, memory_known=why == "another has the room"
    )
    busy = await scheduler.lease("b") if why == "another has the room" else None
    loading = spawn(scheduler.load("a"), name="load")
    asking = ask(scheduler)
    await queued(scheduler, "a", 2)
    async with asyncio.timeout(10):
        await scheduler.unload("a")
    for waiting in (loading, asking):
        assert "was unloaded while it was loading" in (await fails(waiting, Unavailable)).message
    assert status(scheduler, "a").queued == 0
    if busy is not None:
        busy.release()
    assert [start["model"] for start in box.starts()] == ["b"] * (busy is not None)


async def test_loads_and_unloads_at_the_same_time_end_loaded(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a"))
    await use(scheduler)
    await asyncio.gather(
        scheduler.unload("a"), scheduler.unload("a"), scheduler.load("a"), use(scheduler)
    )
    assert scheduler.loaded() == ["a"]
    assert [start["beside"] for start in box.starts()] == [[], []]


async def test_an_eviction_lets_nobody_in(make_scheduler: MakeScheduler, box: Box) -> None:
    scheduler = make_scheduler(box.spec("a"), box.spec("b"), max_loaded=1, linger=0.0)
    await use(scheduler, "a")
    b = ask(scheduler, "b")
    await asyncio.sleep(0)  # "a" is to be stopped, and its backend doesn't know yet
    assert scheduler.try_lease("a") is None
    (await b).release()


async def test_unloading_ends_where_the_process_crashes_meanwhile(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a"))
    with await scheduler.lease("a"):
        unloading = spawn(scheduler.unload("a"), name="unload")
        await asyncio.sleep(0)
        os.kill(status(scheduler, "a").pid, signal.SIGKILL)
        await asyncio.wait_for(unloading, 10)
    await use(scheduler)


# --- a changed models.json -----------------------------------------------------------------


async def test_what_does_not_concern_the_process_leaves_it_alone(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a"), box.spec("b"))
    await use(scheduler)
    pid = status(scheduler, "a").pid
    changed = box.spec("a", personalities={"x": "y"}, ttl=60.0, memory=5, aliases=("z",))
    scheduler.apply(catalog_of(changed, box.spec("b")))
    assert scheduler.loaded() == ["a"]
    assert status(scheduler, "a").pid == pid
    assert scheduler.backend("a").spec is changed
    with scheduler.try_lease("a"):
        pass


async def test_what_does_restarts_it_when_its_work_is_done(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a"))
    running = await scheduler.lease("a")
    pid = running.backend.pid
    scheduler.apply(catalog_of(box.spec("a", ctx=16, parallel=2)))
    assert status(scheduler, "a").pid == pid
    late = ask(scheduler)
    await queued(scheduler, "a", 1)
    running.release()
    lease = await late
    assert lease.backend.pid != pid
    assert not alive(pid)
    assert scheduler.backend("a").spec.ctx_size == 16
    scheduler.try_lease("a").release()  # two slots now
    lease.release()


async def test_a_change_while_it_loads_keeps_who_waits(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a", never_healthy=1))
    waiting = ask(scheduler)
    await says(scheduler.backend("a"))
    scheduler.apply(catalog_of(box.spec("a")))
    (await waiting).release()
    assert status(scheduler, "a").deaths == 0


@pytest.mark.parametrize("ticks", range(6))
async def test_change_at_any_moment_of_a_load_takes_effect(
    make_scheduler: MakeScheduler, box: Box, ticks: Any
) -> None:
    scheduler = make_scheduler(box.spec("a"))
    waiting = ask(scheduler)
    for _ in range(ticks):
        await asyncio.sleep(0)
    scheduler.apply(catalog_of(box.spec("a", ctx=16)))
    (await waiting).release()
    assert scheduler.backend("a").spec.ctx_size == 16
    assert len(box.alive()) == 1


async def test_a_change_gives_a_failed_model_another_chance(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a", exit=1), quick_deaths_allowed=1)
    await fails(scheduler.lease("a"), LoadFailed)
    assert status(scheduler, "a").state is State.FAILED
    scheduler.apply(catalog_of(box.spec("a", personalities={"x": "y"}, exit=1)))
    assert status(scheduler, "a").state is State.FAILED
    scheduler.apply(catalog_of(box.spec("a")))
    assert status(scheduler, "a").state is State.STOPPED
    await use(scheduler)


async def test_model_gone_from_the_file_ends_after_its_work(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a"), box.spec("b"))
    running = await scheduler.lease("a")
    waiting = ask(scheduler)
    await queued(scheduler, "a", 1)
    scheduler.apply(catalog_of(box.spec("b"), box.spec("c")))
    assert "gone from models.json" in (await fails(waiting, ModelNotFound)).message
    await fails(scheduler.lease("a"), ModelNotFound)
    assert list(states(scheduler)) == ["b", "c"]
    pid = running.backend.pid
    assert alive(pid)
    await use(scheduler, "c")
    running.release()
    assert await gone(pid)


async def test_model_that_comes_back_waits_for_the_old_one_to_end(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a"), max_loaded=1)
    running = await scheduler.lease("a")
    scheduler.apply(catalog_of())
    scheduler.apply(catalog_of(box.spec("a", ctx=16)))
    again = ask(scheduler)
    await queued(scheduler, "a", 1)
    assert states(scheduler) == {"a": "stopped"}
    assert (
        await running.backend.pool.fetch(UpstreamRequest("GET", "/health"), timeout=5)
    ).status == 200
    running.release()
    (await again).release()
    assert [start["beside"] for start in box.starts()] == [[], []]


async def test_model_removed_while_it_loads_is_ended(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a", never_healthy=1), box.spec("b"))
    waiting = ask(scheduler)
    await says(scheduler.backend("a"))
    pid = status(scheduler, "a").pid
    scheduler.apply(catalog_of(box.spec("b")))
    await fails(waiting, ModelNotFound)
    assert await gone(pid)


async def test_model_that_dies_while_it_leaves_is_forgotten(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a"))
    running = await scheduler.lease("a")
    scheduler.apply(catalog_of())
    os.kill(running.backend.pid, signal.SIGKILL)
    await until(scheduler, lambda: box.left() == [])
    running.release()
