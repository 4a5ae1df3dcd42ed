"""Leases: who waits for a model, in which order, and for how long."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from gateway.backends.backend import State
from gateway.errors import ModelNotFound, Unavailable
from gateway.tasks import spawn
from gateway.upstream import UpstreamRequest
from tests.backends.conftest import MakeScheduler
from tests.schedulers import ask, fails, in_state, queued, states, status, use
from tests.scripted import Box


async def test_a_request_loads_its_model_and_the_next_has_it_at_once(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a"), box.spec("b"))
    assert scheduler.try_lease("a") is None
    with await scheduler.lease("a") as lease:
        assert (
            await lease.backend.pool.fetch(UpstreamRequest("GET", "/health"), timeout=5)
        ).status == 200
        assert scheduler.in_flight == status(scheduler, "a").in_flight == 1
    assert scheduler.in_flight == 0
    lease.release()
    assert scheduler.in_flight == 0
    with scheduler.try_lease("a"):
        pass
    assert scheduler.loaded() == ["a"]
    assert states(scheduler) == {"a": "ready", "b": "stopped"}
    assert [start["model"] for start in box.starts()] == ["a"]


async def test_unknown_models_are_not_found(
    make_scheduler: MakeScheduler, box: Box, subtests: pytest.Subtests
) -> None:
    scheduler = make_scheduler(box.spec("a"))
    assert scheduler.try_lease("x") is None
    assert scheduler.backend("x") is None
    for call in (scheduler.lease, scheduler.load, scheduler.unload):
        with subtests.test(f"{call!r:.80}"):
            assert (await fails(call("x"), ModelNotFound)).status == 404


async def test_many_requests_make_one_load_and_are_served_in_their_order(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a", start_delay=0.1))
    order: list[int] = []

    async def client(number: int) -> None:
        with await scheduler.lease("a"):
            assert scheduler.in_flight == 1
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(client(n) for n in range(30)))
    assert order == list(range(30))
    assert len(box.starts()) == 1


async def test_nobody_overtakes_those_who_wait(make_scheduler: MakeScheduler, box: Box) -> None:
    scheduler = make_scheduler(box.spec("a"))
    first = await scheduler.lease("a")
    second = ask(scheduler)
    await queued(scheduler, "a", 1)
    first.release()
    assert scheduler.try_lease("a") is None
    (await second).release()


async def test_slot_of_who_waits_for_another_one_may_be_lent(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a", parallel=2))
    first, second = await scheduler.lease("a"), await scheduler.lease("a")
    third, fourth = ask(scheduler), ask(scheduler)
    await queued(scheduler, "a", 2)
    second.lend()
    second.lend()
    lease = await third
    assert (status(scheduler, "a").in_flight, status(scheduler, "a").queued) == (2, 2)
    assert scheduler.in_flight == 3
    assert not fourth.done()
    first.release()
    (await fourth).release()
    second.reclaim()
    assert scheduler.try_lease("a") is None
    lease.release()
    with scheduler.try_lease("a"):
        assert scheduler.try_lease("a") is None
    second.release()
    assert scheduler.in_flight == 0


async def test_lease_that_is_given_back_while_it_is_lent_counts_no_more(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a"))
    first = await scheduler.lease("a")
    first.lend()
    second = scheduler.try_lease("a")
    first.release()
    first.lend()
    assert scheduler.try_lease("a") is None
    second.release()
    with scheduler.try_lease("a"):
        assert scheduler.try_lease("a") is None


async def test_as_many_run_as_there_are_slots(make_scheduler: MakeScheduler, box: Box) -> None:
    scheduler = make_scheduler(box.spec("a", parallel=3))
    running = highest = 0

    async def client() -> None:
        nonlocal running, highest
        with await scheduler.lease("a"):
            running += 1
            highest = max(highest, running)
            await asyncio.sleep(0.005)  # a moment in which others may come
            running -= 1

    await asyncio.gather(*(client() for _ in range(20)))
    assert highest == 3


async def test_a_full_queue_refuses_at_once(make_scheduler: MakeScheduler, box: Box) -> None:
    scheduler = make_scheduler(box.spec("a"), queue_size=2)
    first = await scheduler.lease("a")
    waiting = [ask(scheduler), ask(scheduler)]
    await queued(scheduler, "a", 2)
    error = await fails(scheduler.lease("a"), Unavailable)
    assert (error.code, error.status, error.headers["Retry-After"]) == ("queue_full", 503, "5")
    first.release()
    for lease in waiting:
        (await lease).release()
    await use(scheduler)


async def test_waiting_too_long_ends_with_an_error(make_scheduler: MakeScheduler, box: Box) -> None:
    scheduler = make_scheduler(box.spec("a"), queue_timeout=0.2)
    await scheduler.load("a")  # takes the time that it takes
    with await scheduler.lease("a"):
        error = await fails(scheduler.lease("a"), Unavailable)
    assert error.code == "queue_timeout"
    assert error.headers["Retry-After"]
    assert "waited 0.2 s for 'a', which is ready with 1 requests running" in error.message
    await use(scheduler)


async def test_one_that_hangs_up_leaves_the_queue(make_scheduler: MakeScheduler, box: Box) -> None:
    scheduler = make_scheduler(box.spec("a"))
    first = await scheduler.lease("a")
    waiting = [ask(scheduler) for _ in range(3)]
    await queued(scheduler, "a", 3)
    waiting[0].cancel()
    waiting[2].cancel()
    await queued(scheduler, "a", 1)
    first.release()
    (await waiting[1]).release()
    assert waiting[0].cancelled()
    assert waiting[2].cancelled()


async def test_a_lease_that_comes_as_its_waiter_hangs_up_is_not_lost(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a"))
    first = await scheduler.lease("a")
    going, staying = ask(scheduler), ask(scheduler)
    await queued(scheduler, "a", 2)
    first.release()  # granted to the first in line ...
    going.cancel()  # ... who goes before it can know
    (await staying).release()
    assert going.cancelled()


async def test_a_lease_that_comes_as_the_time_is_up_is_not_lost(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    """Whoever wins the race, in the end the slot is free."""
    scheduler = make_scheduler(box.spec("a"), queue_timeout=0.02)
    with contextlib.suppress(Unavailable):
        await use(scheduler)
    await in_state(scheduler, "a", State.READY)
    for number in range(20):
        first = scheduler.try_lease("a")
        loop = asyncio.get_running_loop()
        loop.call_later(0.018 + number / 5000, first.release)
        with contextlib.suppress(Unavailable):
            await use(scheduler)
        await scheduler.idle()


async def test_idle_is_when_nothing_runs(make_scheduler: MakeScheduler, box: Box) -> None:
    scheduler = make_scheduler(box.spec("a"))
    await scheduler.idle()
    with await scheduler.lease("a"):
        idle = spawn(scheduler.idle(), name="idle")
        await asyncio.sleep(0)
        assert not idle.done()
    await idle
