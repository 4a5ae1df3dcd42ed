"""The scheduler with real processes: scripted ones, and the bundled llama-server once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from scripted import DEMO_GGUF, Box, alive, catalog_of, gone, says, until

from gateway.backends.accounts import Accounts
from gateway.backends.backend import State
from gateway.backends.decision import SchedulingLimits
from gateway.backends.lease import Lease
from gateway.backends.memory import Needs
from gateway.backends.model_status import ModelStatus
from gateway.backends.scheduler import Scheduler
from gateway.catalog import ModelSpec, Params
from gateway.errors import GatewayError, LoadFailed, ModelNotFound, Unavailable
from gateway.tasks import spawn
from gateway.upstream import ConnectionLost

Make = Callable[..., Scheduler]


@pytest.fixture
async def make(box: Box) -> AsyncIterator[Make]:
    """Schedulers that end with the test; afterwards nothing may be in flight or waiting."""
    made: list[Scheduler] = []

    def make(*specs: ModelSpec, **options: Any) -> Scheduler:
        names = ("max_loaded", "budget", "patience", "linger")
        limits = {name: options.pop(name) for name in names if name in options}
        own = {"queue_size": 100, "queue_timeout": 20.0, "idle_unload": None}
        own |= {"memory_known": True}
        own |= {key: options.pop(key) for key in list(options) if key in own}
        environment = box.environment(**options)
        scheduler = Scheduler(catalog_of(*specs), environment, SchedulingLimits(**limits), **own)
        made.append(scheduler)
        return scheduler

    yield make
    for scheduler in made:
        await scheduler.close()
        assert scheduler.in_flight == 0
        assert all(s.in_flight == s.queued == 0 for s in scheduler.status())
        assert all(s.pid is None for s in scheduler.status())


def status(scheduler: Scheduler, model: str) -> ModelStatus:
    return next(s for s in scheduler.status() if s.name == model)


def states(scheduler: Scheduler) -> dict[str, str]:
    return {s.name: str(s.state) for s in scheduler.status()}


async def use(scheduler: Scheduler, model: str = "a") -> None:
    """One lease, given back at once."""
    (await scheduler.lease(model)).release()


def ask(scheduler: Scheduler, model: str = "a") -> asyncio.Task[Lease]:
    return spawn(scheduler.lease(model), name=f"lease {model}")


async def queued(scheduler: Scheduler, model: str, count: int) -> None:
    await until(scheduler, lambda: status(scheduler, model).queued == count)


async def in_state(scheduler: Scheduler, model: str, state: State) -> None:
    await until(scheduler, lambda: status(scheduler, model).state is state)


async def fails(awaitable: Any, kind: type[GatewayError]) -> GatewayError:
    with pytest.raises(kind) as caught:
        await awaitable
    return caught.value


# --- leases --------------------------------------------------------------------------------


async def test_a_request_loads_its_model_and_the_next_has_it_at_once(make, box):
    scheduler = make(box.spec("a"), box.spec("b"))
    assert scheduler.try_lease("a") is None
    with await scheduler.lease("a") as lease:
        assert (await lease.backend.pool.fetch("GET", "/health", timeout=5)).status == 200
        assert scheduler.in_flight == status(scheduler, "a").in_flight == 1
    assert scheduler.in_flight == 0
    lease.release()
    assert scheduler.in_flight == 0
    with scheduler.try_lease("a"):
        pass
    assert scheduler.loaded() == ["a"]
    assert states(scheduler) == {"a": "ready", "b": "stopped"}
    assert [start["model"] for start in box.starts()] == ["a"]


async def test_unknown_models(make, box):
    scheduler = make(box.spec("a"))
    assert scheduler.try_lease("x") is None
    assert scheduler.backend("x") is None
    for call in (scheduler.lease, scheduler.load, scheduler.unload):
        assert (await fails(call("x"), ModelNotFound)).status == 404


async def test_many_requests_make_one_load_and_are_served_in_their_order(make, box):
    scheduler = make(box.spec("a", start_delay=0.1))
    order: list[int] = []

    async def client(number: int) -> None:
        with await scheduler.lease("a"):
            assert scheduler.in_flight == 1
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(client(n) for n in range(30)))
    assert order == list(range(30))
    assert len(box.starts()) == 1


async def test_nobody_overtakes_those_who_wait(make, box):
    scheduler = make(box.spec("a"))
    first = await scheduler.lease("a")
    second = ask(scheduler)
    await queued(scheduler, "a", 1)
    first.release()
    assert scheduler.try_lease("a") is None
    (await second).release()


async def test_as_many_run_as_there_are_slots(make, box):
    scheduler = make(box.spec("a", parallel=3))
    running = highest = 0

    async def client() -> None:
        nonlocal running, highest
        with await scheduler.lease("a"):
            running += 1
            highest = max(highest, running)
            await asyncio.sleep(0.005)
            running -= 1

    await asyncio.gather(*(client() for _ in range(20)))
    assert highest == 3


async def test_a_full_queue_refuses_at_once(make, box):
    scheduler = make(box.spec("a"), queue_size=2)
    first = await scheduler.lease("a")
    waiting = [ask(scheduler), ask(scheduler)]
    await queued(scheduler, "a", 2)
    error = await fails(scheduler.lease("a"), Unavailable)
    assert (error.code, error.status, error.headers["Retry-After"]) == ("queue_full", 503, "5")
    first.release()
    for lease in waiting:
        (await lease).release()
    await use(scheduler)


async def test_waiting_too_long(make, box):
    scheduler = make(box.spec("a"), queue_timeout=0.2)
    await scheduler.load("a")  # takes the time that it takes
    with await scheduler.lease("a"):
        error = await fails(scheduler.lease("a"), Unavailable)
    assert error.code == "queue_timeout"
    assert error.headers["Retry-After"]
    assert "waited 0.2 s for 'a', which is ready with 1 requests running" in error.message
    await use(scheduler)


async def test_one_that_hangs_up_leaves_the_queue(make, box):
    scheduler = make(box.spec("a"))
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


async def test_a_lease_that_comes_as_its_waiter_hangs_up_is_not_lost(make, box):
    scheduler = make(box.spec("a"))
    first = await scheduler.lease("a")
    going, staying = ask(scheduler), ask(scheduler)
    await queued(scheduler, "a", 2)
    first.release()  # granted to the first in line ...
    going.cancel()  # ... who goes before it can know
    (await staying).release()
    assert going.cancelled()


async def test_a_lease_that_comes_as_the_time_is_up_is_not_lost(make, box):
    """Whoever wins the race, in the end the slot is free."""
    scheduler = make(box.spec("a"), queue_timeout=0.02)
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


async def test_idle_is_when_nothing_runs(make, box):
    scheduler = make(box.spec("a"))
    await scheduler.idle()
    with await scheduler.lease("a"):
        idle = spawn(scheduler.idle(), name="idle")
        await asyncio.sleep(0)
        assert not idle.done()
    await idle


# --- several models ------------------------------------------------------------------------


async def test_a_ready_model_serves_while_another_loads(make, box):
    scheduler = make(box.spec("a"), box.spec("b", start_delay=0.5))
    await use(scheduler, "a")
    b = ask(scheduler, "b")
    await in_state(scheduler, "b", State.STARTING)
    for _ in range(50):
        await use(scheduler, "a")
    assert not b.done()
    (await b).release()


async def test_two_loads_at_once(make, box):
    scheduler = make(box.spec("a", start_delay=0.3), box.spec("b", start_delay=0.3))
    loading = [spawn(scheduler.load(name), name=f"load {name}") for name in "ab"]
    await until(scheduler, lambda: set(states(scheduler).values()) == {"starting"})
    await asyncio.gather(*loading)
    assert scheduler.loaded() == ["a", "b"]


async def test_a_swap_lets_the_stream_end_and_the_old_process_go_first(make, box):
    spec = box.spec("a", chunks=10, pause=0.03, ignore_term=1)
    scheduler = make(spec, box.spec("b"), max_loaded=1, patience=0.0, stop_grace=0.2)
    await scheduler.load("a")
    scheduler.backend("a").ready_since -= 60  # its minimum residency is over
    with await scheduler.lease("a") as lease:
        body = json.dumps({"stream": True}).encode()
        stream = spawn(
            lease.backend.pool.fetch("POST", "/v1/chat/completions", body=body, timeout=20),
            name="stream",
        )
        b = ask(scheduler, "b")
        await in_state(scheduler, "a", State.DRAINING)
        late = ask(scheduler, "a")
        answer = await stream
        assert answer.body.endswith(b"data: [DONE]\n\n")
        assert answer.body.count(b"word") == 10
        assert not b.done()
    (await b).release()
    (await late).release()
    starts = box.starts()
    assert [start["model"] for start in starts] == ["a", "b", "a"]
    assert [start["beside"] for start in starts] == [[], [], []]


async def test_a_drain_is_called_off_when_the_newcomer_goes(make, box):
    scheduler = make(box.spec("a"), box.spec("b"), max_loaded=1, patience=0.0)
    await scheduler.load("a")
    scheduler.backend("a").ready_since -= 60
    with await scheduler.lease("a"):
        b = ask(scheduler, "b")
        await in_state(scheduler, "a", State.DRAINING)
        b.cancel()
        await in_state(scheduler, "a", State.READY)
    await use(scheduler, "a")
    assert len(box.starts()) == 1


async def test_the_least_recently_used_model_goes(make, box):
    scheduler = make(*(box.spec(name) for name in "abc"), max_loaded=2)
    await use(scheduler, "a")
    await use(scheduler, "b")
    await use(scheduler, "a")
    await use(scheduler, "c")
    assert scheduler.loaded() == ["a", "c"]


async def test_a_memory_budget_is_kept(make, box):
    specs = [box.spec("a", memory=6), box.spec("b", memory=5), box.spec("c", memory=4)]
    scheduler = make(*specs, budget=10)
    await asyncio.gather(*(use(scheduler, name) for name in "abcab"))
    memory = {spec.name: spec.memory for spec in specs}
    running = {start["pid"]: memory[start["model"]] for start in box.starts()}
    for start in box.starts():
        beside = sum(running[pid] for pid in start["beside"])
        assert beside + memory[start["model"]] <= 10


def accounts_of(box: Box) -> Accounts:
    async def remember(key: str, size: int) -> None:
        pass

    return Accounts(Needs(box.folder, {}, remember), None, {})


async def test_nothing_is_loaded_before_the_memory_is_known(make, box):
    specs = box.spec("a", memory=60), box.spec("b", memory=60), box.spec("c")
    scheduler = make(*specs, memory_known=False)
    waiting = [ask(scheduler, name) for name in "abc"]
    await queued(scheduler, "c", 1)
    await asyncio.sleep(0.05)
    assert box.starts() == []
    scheduler.watch_memory(
        accounts_of(box), SchedulingLimits(max_loaded=1, budget=100, patience=0.1)
    )
    for lease in waiting:  # also for the one whose need nobody has asked for yet
        (await asyncio.wait_for(lease, 10)).release()
    assert [start["beside"] for start in box.starts()] == [[], [], []]


async def test_a_changed_model_that_is_waited_for_is_looked_at_anew(make, box):
    scheduler = make(box.spec("a"), box.spec("b"), max_loaded=1)
    scheduler.watch_memory(accounts_of(box), SchedulingLimits(max_loaded=1))
    busy = await scheduler.lease("b")
    waiting = ask(scheduler, "a")
    await queued(scheduler, "a", 1)
    scheduler.apply(catalog_of(box.spec("a", ctx=16), box.spec("b")))
    busy.release()
    (await asyncio.wait_for(waiting, 10)).release()


async def test_pinned_models_stay_and_what_cannot_fit_is_refused(make, box):
    scheduler = make(box.spec("a", pinned=True), box.spec("b"), max_loaded=1)
    await use(scheduler, "a")
    for call in (scheduler.lease, scheduler.load):
        error = await fails(call("b"), Unavailable)
        assert error.code == "no_room"
        assert "beside the models that are pinned" in error.message
    assert scheduler.loaded() == ["a"]
    await scheduler.unload("a")
    await use(scheduler, "b")


async def test_a_load_everyone_has_left_makes_room_for_another(make, box):
    scheduler = make(box.spec("a", never_healthy=1), box.spec("b"), max_loaded=1)
    leaving = ask(scheduler, "a")
    await in_state(scheduler, "a", State.STARTING)
    b = ask(scheduler, "b")
    await queued(scheduler, "b", 1)
    assert status(scheduler, "a").state is State.STARTING  # somebody waits for it
    leaving.cancel()
    (await b).release()
    assert states(scheduler) == {"a": "stopped", "b": "ready"}
    assert status(scheduler, "a").deaths == 0


async def test_a_load_everyone_has_left_goes_on_if_nobody_needs_its_place(make, box):
    scheduler = make(box.spec("a", start_delay=0.1))
    leaving = ask(scheduler, "a")
    await in_state(scheduler, "a", State.STARTING)
    leaving.cancel()
    await in_state(scheduler, "a", State.READY)


async def test_one_who_comes_back_while_an_abandoned_load_is_stopped(make, box):
    specs = box.spec("a", start_delay=0.2, ignore_term=1), box.spec("b")
    scheduler = make(*specs, max_loaded=1, stop_grace=0.1)
    leaving = ask(scheduler, "a")
    await says(scheduler.backend("a"))
    b = ask(scheduler, "b")
    await queued(scheduler, "b", 1)
    leaving.cancel()
    await in_state(scheduler, "a", State.STOPPING)
    again = ask(scheduler, "a")
    (await b).release()
    (await again).release()
    assert all(start["beside"] == [] for start in box.starts())


async def test_idle_models_go_after_their_time(make, box):
    specs = box.spec("a", ttl=0.2), box.spec("b"), box.spec("c", pinned=True)
    scheduler = make(*specs, idle_unload=0.4)
    started = time.monotonic()
    await asyncio.gather(*(scheduler.load(name) for name in "abc"))
    # On a busy machine the first may be gone again before the last is there.
    assert [status(scheduler, name).starts for name in "abc"] == [1, 1, 1]
    await in_state(scheduler, "a", State.STOPPED)
    await in_state(scheduler, "b", State.STOPPED)
    assert time.monotonic() - started >= 0.4
    assert states(scheduler) == {"a": "stopped", "b": "stopped", "c": "ready"}
    with await scheduler.lease("a"):  # no longer fresh, but in use
        await asyncio.sleep(0.3)
        assert status(scheduler, "a").state is State.READY
    released = time.monotonic()
    await in_state(scheduler, "a", State.STOPPED)
    assert time.monotonic() - released >= 0.19


# --- failures ------------------------------------------------------------------------------


async def test_a_failed_load_fails_all_who_wait_and_is_not_repeated_for_them(make, box):
    scheduler = make(box.spec("a", exit=3), box.spec("b"))
    results = await asyncio.gather(
        *(scheduler.lease("a") for _ in range(5)), scheduler.load("a"), return_exceptions=True
    )
    assert [type(error) for error in results] == [LoadFailed] * 6
    assert len({id(error) for error in results}) == 6
    assert all("does not want to start" in str(error) for error in results)
    assert status(scheduler, "a").starts == 1
    await use(scheduler, "b")


async def test_a_failed_one_comes_back_by_itself_and_says_when(make, box):
    once = box.folder / "once"
    scheduler = make(
        box.spec("a", exit_once=once), quick_deaths_allowed=1, failed_first=0.3, backoff_first=0.01
    )
    await fails(scheduler.lease("a"), LoadFailed)
    assert status(scheduler, "a").state is State.FAILED
    assert status(scheduler, "a").retry_in > 0
    backend = scheduler.backend("a")
    while backend.retry_at > time.monotonic():
        await asyncio.sleep(backend.retry_at - time.monotonic())
    await use(scheduler, "a")
    assert status(scheduler, "a").starts == 2


async def test_one_that_keeps_failing_is_given_up_until_it_is_loaded_explicitly(make, box):
    scheduler = make(box.spec("a", exit=3), quick_deaths_allowed=3, backoff_first=0.01)
    for _ in range(3):
        await fails(scheduler.lease("a"), LoadFailed)
    assert status(scheduler, "a").state is State.FAILED
    error = await fails(scheduler.lease("a"), LoadFailed)
    assert "failed 3 times in a row" in error.message
    assert status(scheduler, "a").starts == 3
    await fails(scheduler.load("a"), LoadFailed)
    assert status(scheduler, "a").starts == 4
    assert status(scheduler, "a").state is State.BACKOFF


async def test_a_missing_file_is_looked_for_each_time(make, box):
    scheduler = make(box.spec("a", model="nowhere.gguf"))
    for _ in range(6):
        error = await fails(scheduler.lease("a"), LoadFailed)
        assert error.code == "model_file_not_found"
    (box.folder / "nowhere.gguf").touch()
    await use(scheduler, "a")


async def test_a_crash_while_others_wait(make, box):
    scheduler = make(box.spec("a"))
    first = await scheduler.lease("a")
    waiting = [ask(scheduler) for _ in range(3)]
    await queued(scheduler, "a", 3)
    os.kill(status(scheduler, "a").pid, signal.SIGKILL)
    await in_state(scheduler, "a", State.BACKOFF)
    assert 0 < status(scheduler, "a").retry_in < 1
    assert scheduler.try_lease("a") is None
    first.release()
    for lease in waiting:
        (await lease).release()
    assert status(scheduler, "a").deaths == 1
    assert len(box.starts()) == 2


async def test_a_dead_backend_is_not_handed_out(make, box):
    scheduler = make(box.spec("a"))
    for _ in range(3):
        await use(scheduler)
        os.kill(status(scheduler, "a").pid, signal.SIGKILL)
        with await scheduler.lease("a") as lease:  # perhaps before anyone knows
            with contextlib.suppress(GatewayError):
                await lease.backend.pool.fetch("GET", "/health", timeout=5)
            await lease.backend.suspect(ConnectionLost("gone", before_head=True))
        with await scheduler.lease("a") as lease:
            assert (await lease.backend.pool.fetch("GET", "/health", timeout=5)).status == 200


async def test_nothing_waits_behind_a_model_in_backoff(make, box, tmp_path):
    specs = box.spec("a", exit_once=tmp_path / "once"), box.spec("b")
    scheduler = make(*specs, max_loaded=1, backoff_first=60)
    await fails(scheduler.lease("a"), LoadFailed)
    a = ask(scheduler, "a")
    await queued(scheduler, "a", 1)
    await use(scheduler, "b")
    await scheduler.load("a")  # an explicit load ends the wait
    (await a).release()


# --- load and unload -----------------------------------------------------------------------


async def test_load_and_unload(make, box):
    scheduler = make(box.spec("a"))
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


async def test_unloading_waits_for_what_runs_and_lets_nobody_in(make, box):
    scheduler = make(box.spec("a", parallel=2))
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
async def test_unloading_at_any_moment_of_a_load(make, box, ticks):
    scheduler = make(box.spec("a", start_delay=0.05))
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
async def test_unloading_before_a_load_can_begin(make, box, why):
    scheduler = make(
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


async def test_several_unload_and_load_at_the_same_time(make, box):
    scheduler = make(box.spec("a"))
    await use(scheduler)
    await asyncio.gather(
        scheduler.unload("a"), scheduler.unload("a"), scheduler.load("a"), use(scheduler)
    )
    assert scheduler.loaded() == ["a"]
    assert [start["beside"] for start in box.starts()] == [[], []]


async def test_an_eviction_lets_nobody_in(make, box):
    scheduler = make(box.spec("a"), box.spec("b"), max_loaded=1, linger=0.0)
    await use(scheduler, "a")
    b = ask(scheduler, "b")
    await asyncio.sleep(0)  # "a" is to be stopped, and its backend doesn't know yet
    assert scheduler.try_lease("a") is None
    (await b).release()


async def test_unloading_one_that_crashes_meanwhile(make, box):
    scheduler = make(box.spec("a"))
    with await scheduler.lease("a"):
        unloading = spawn(scheduler.unload("a"), name="unload")
        await asyncio.sleep(0)
        os.kill(status(scheduler, "a").pid, signal.SIGKILL)
        await asyncio.wait_for(unloading, 10)
    await use(scheduler)


# --- a changed models.json -----------------------------------------------------------------


async def test_what_does_not_concern_the_process_leaves_it_alone(make, box):
    scheduler = make(box.spec("a"), box.spec("b"))
    await use(scheduler)
    pid = status(scheduler, "a").pid
    changed = box.spec("a", personalities={"x": "y"}, ttl=60.0, memory=5, aliases=("z",))
    scheduler.apply(catalog_of(changed, box.spec("b")))
    assert scheduler.loaded() == ["a"]
    assert status(scheduler, "a").pid == pid
    assert scheduler.backend("a").spec is changed
    with scheduler.try_lease("a"):
        pass


async def test_what_does_restarts_it_when_its_work_is_done(make, box):
    scheduler = make(box.spec("a"))
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
    assert scheduler.backend("a").spec.params.ctx_size == 16
    scheduler.try_lease("a").release()  # two slots now
    lease.release()


async def test_a_change_while_it_loads_keeps_who_waits(make, box):
    scheduler = make(box.spec("a", never_healthy=1))
    waiting = ask(scheduler)
    await says(scheduler.backend("a"))
    scheduler.apply(catalog_of(box.spec("a")))
    (await waiting).release()
    assert status(scheduler, "a").deaths == 0


@pytest.mark.parametrize("ticks", range(6))
async def test_a_change_at_any_moment_of_a_load(make, box, ticks):
    scheduler = make(box.spec("a"))
    waiting = ask(scheduler)
    for _ in range(ticks):
        await asyncio.sleep(0)
    scheduler.apply(catalog_of(box.spec("a", ctx=16)))
    (await waiting).release()
    assert scheduler.backend("a").spec.params.ctx_size == 16
    assert len(box.alive()) == 1


async def test_a_change_gives_a_failed_model_another_chance(make, box):
    scheduler = make(box.spec("a", exit=1), quick_deaths_allowed=1)
    await fails(scheduler.lease("a"), LoadFailed)
    assert status(scheduler, "a").state is State.FAILED
    scheduler.apply(catalog_of(box.spec("a", personalities={"x": "y"}, exit=1)))
    assert status(scheduler, "a").state is State.FAILED
    scheduler.apply(catalog_of(box.spec("a")))
    assert status(scheduler, "a").state is State.STOPPED
    await use(scheduler)


async def test_a_model_that_is_gone_from_the_file(make, box):
    scheduler = make(box.spec("a"), box.spec("b"))
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


async def test_a_model_that_comes_back_while_the_old_one_still_answers(make, box):
    scheduler = make(box.spec("a"), max_loaded=1)
    running = await scheduler.lease("a")
    scheduler.apply(catalog_of())
    scheduler.apply(catalog_of(box.spec("a", ctx=16)))
    again = ask(scheduler)
    await queued(scheduler, "a", 1)
    assert states(scheduler) == {"a": "stopped"}
    assert (await running.backend.pool.fetch("GET", "/health", timeout=5)).status == 200
    running.release()
    (await again).release()
    assert [start["beside"] for start in box.starts()] == [[], []]


async def test_a_model_that_goes_while_it_loads(make, box):
    scheduler = make(box.spec("a", never_healthy=1), box.spec("b"))
    waiting = ask(scheduler)
    await says(scheduler.backend("a"))
    pid = status(scheduler, "a").pid
    scheduler.apply(catalog_of(box.spec("b")))
    await fails(waiting, ModelNotFound)
    assert await gone(pid)


async def test_a_model_that_dies_while_it_leaves(make, box):
    scheduler = make(box.spec("a"))
    running = await scheduler.lease("a")
    scheduler.apply(catalog_of())
    os.kill(running.backend.pid, signal.SIGKILL)
    await until(scheduler, lambda: box.left() == [])
    running.release()


# --- the end -------------------------------------------------------------------------------


async def test_refusing_new_ones_lets_the_running_finish(make, box):
    scheduler = make(box.spec("a"), box.spec("b", never_healthy=1))
    running = await scheduler.lease("a")
    waiting = [ask(scheduler), ask(scheduler, "b"), spawn(scheduler.load("b"), name="load")]
    await queued(scheduler, "b", 2)
    scheduler.refuse_new()
    for task in waiting:
        error = await fails(task, Unavailable)
        assert (error.code, error.headers["Retry-After"]) == ("shutting_down", "10")
    assert scheduler.try_lease("a") is None
    for call in (scheduler.lease, scheduler.load, scheduler.unload):
        assert (await fails(call("a"), Unavailable)).code == "shutting_down"
    assert (await running.backend.pool.fetch("GET", "/health", timeout=5)).status == 200
    running.release()
    await scheduler.idle()


@pytest.mark.parametrize("ticks", [*range(10), None])
async def test_closing_at_any_moment_of_a_load(make, box, ticks):
    scheduler = make(box.spec("a", never_healthy=1), box.spec("b", never_healthy=1))
    waiting = [ask(scheduler, "a"), ask(scheduler, "b")]
    if ticks is None:
        await says(scheduler.backend("a"))
    else:
        for _ in range(ticks):
            await asyncio.sleep(0)
    await scheduler.close()
    assert box.alive() == []
    for task in waiting:
        await fails(task, Unavailable)
    await scheduler.close()
    await asyncio.sleep(0.02)  # whatever is still on its way must not start anything
    assert box.alive() == []


async def test_closing_while_a_model_is_being_unloaded(make, box):
    scheduler = make(box.spec("a", ignore_term=1), stop_grace=0.2)
    await use(scheduler)
    unloading = spawn(scheduler.unload("a"), name="unload")
    await in_state(scheduler, "a", State.STOPPING)
    await asyncio.gather(scheduler.close(), scheduler.close())
    await unloading
    assert box.alive() == []


async def test_closing_with_work_in_flight(make, box):
    scheduler = make(box.spec("a"))
    running = await scheduler.lease("a")
    await scheduler.close()
    assert box.alive() == []
    running.release()


# --- all of it together --------------------------------------------------------------------


async def test_a_crowd_that_hangs_up_and_children_that_are_killed(make, box):
    """Everyone is served, or hangs up; nobody sees an error that nobody caused."""
    specs = [box.spec(name, parallel=2) for name in "abc"]
    scheduler = make(*specs, max_loaded=2, patience=0.1, quick_deaths_allowed=1000)
    dice = random.Random(7)
    served = 0

    async def client() -> None:
        nonlocal served
        for _ in range(4):
            try:
                async with asyncio.timeout(dice.choice([0.01, 0.2, 30])):
                    with await scheduler.lease(dice.choice("abc")):
                        assert scheduler.in_flight <= 6
                        await asyncio.sleep(dice.random() / 50)
                    served += 1
            except TimeoutError:
                pass

    async def murderer() -> None:
        for _ in range(4):
            await asyncio.sleep(0.3)
            if pids := [s.pid for s in scheduler.status() if s.pid and s.state is State.READY]:
                os.kill(dice.choice(pids), signal.SIGKILL)

    async with asyncio.timeout(50):
        await asyncio.gather(murderer(), *(client() for _ in range(30)))
    assert served > 30
    assert scheduler.in_flight == 0
    assert max(len(start["beside"]) for start in box.starts()) <= 1


async def test_the_bundled_one_killed_while_idle_serves_the_next(make, box):
    params = Params(model=DEMO_GGUF, ctx_size=256, threads=1)
    scheduler = make(ModelSpec(name="demo", params=params), llama_server="auto")
    await use(scheduler, "demo")
    os.kill(status(scheduler, "demo").pid, signal.SIGKILL)
    await in_state(scheduler, "demo", State.BACKOFF)
    with await scheduler.lease("demo") as lease:
        body = json.dumps({"prompt": "The sky is", "n_predict": 2}).encode()
        answer = await lease.backend.pool.fetch("POST", "/completion", body=body, timeout=30)
        assert answer.status == 200
        assert json.loads(answer.body)["tokens_predicted"] == 2
