"""Several models beside each other, with real processes: swaps, and failures."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from pathlib import Path

from gateway.backends.accounts import Accounts
from gateway.backends.backend import State
from gateway.backends.decision import SchedulingLimits
from gateway.backends.memory import Needs
from gateway.errors import GatewayError, LoadFailed, Unavailable
from gateway.tasks import spawn
from gateway.upstream import UpstreamRequest
from tests.backends.conftest import MakeScheduler
from tests.schedulers import ask, fails, in_state, queued, states, status, use
from tests.scripted import Box, catalog_of, says, until

# --- several models ------------------------------------------------------------------------


async def test_a_ready_model_serves_while_another_loads(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a"), box.spec("b", start_delay=0.5))
    await use(scheduler, "a")
    b = ask(scheduler, "b")
    await in_state(scheduler, "b", State.STARTING)
    for _ in range(50):
        await use(scheduler, "a")
    assert not b.done()
    (await b).release()


async def test_two_models_load_at_once(make_scheduler: MakeScheduler, box: Box) -> None:
    scheduler = make_scheduler(box.spec("a", start_delay=0.3), box.spec("b", start_delay=0.3))
    loading = [spawn(scheduler.load(name), name=f"load {name}") for name in "ab"]
    await until(scheduler, lambda: set(states(scheduler).values()) == {"starting"})
    await asyncio.gather(*loading)
    assert scheduler.loaded() == ["a", "b"]


async def test_a_swap_lets_the_stream_end_and_the_old_process_go_first(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    spec = box.spec("a", chunks=10, pause=0.03, ignore_term=1)
    scheduler = make_scheduler(spec, box.spec("b"), max_loaded=1, patience=0.0, stop_grace=0.2)
    await scheduler.load("a")
    scheduler.backend("a").ready_since -= 60  # its minimum residency is over
    with await scheduler.lease("a") as lease:
        body = json.dumps({"stream": True}).encode()
        stream = spawn(
            lease.backend.pool.fetch(
                UpstreamRequest("POST", "/v1/chat/completions", body=body), timeout=20
            ),
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


async def test_a_drain_is_called_off_when_the_newcomer_goes(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a"), box.spec("b"), max_loaded=1, patience=0.0)
    await scheduler.load("a")
    scheduler.backend("a").ready_since -= 60
    with await scheduler.lease("a"):
        b = ask(scheduler, "b")
        await in_state(scheduler, "a", State.DRAINING)
        b.cancel()
        await in_state(scheduler, "a", State.READY)
    await use(scheduler, "a")
    assert len(box.starts()) == 1


async def test_the_least_recently_used_model_goes(make_scheduler: MakeScheduler, box: Box) -> None:
    scheduler = make_scheduler(*(box.spec(name) for name in "abc"), max_loaded=2)
    await use(scheduler, "a")
    await use(scheduler, "b")
    await use(scheduler, "a")
    await use(scheduler, "c")
    assert scheduler.loaded() == ["a", "c"]


async def test_a_memory_budget_is_kept(make_scheduler: MakeScheduler, box: Box) -> None:
    specs = [box.spec("a", memory=6), box.spec("b", memory=5), box.spec("c", memory=4)]
    scheduler = make_scheduler(*specs, budget=10)
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


async def test_nothing_is_loaded_before_the_memory_is_known(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    specs = box.spec("a", memory=60), box.spec("b", memory=60), box.spec("c")
    scheduler = make_scheduler(*specs, memory_known=False)
    waiting = [ask(scheduler, name) for name in "abc"]
    await queued(scheduler, "c", 1)
    await asyncio.sleep(0.05)  # nothing must happen meanwhile
    assert box.starts() == []
    scheduler.watch_memory(
        accounts_of(box), SchedulingLimits(max_loaded=1, budget=100, patience=0.1)
    )
    for lease in waiting:  # also for the one whose need nobody has asked for yet
        (await asyncio.wait_for(lease, 10)).release()
    assert [start["beside"] for start in box.starts()] == [[], [], []]


async def test_a_changed_model_that_is_waited_for_is_looked_at_anew(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a"), box.spec("b"), max_loaded=1)
    scheduler.watch_memory(accounts_of(box), SchedulingLimits(max_loaded=1))
    busy = await scheduler.lease("b")
    waiting = ask(scheduler, "a")
    await queued(scheduler, "a", 1)
    scheduler.apply(catalog_of(box.spec("a", ctx=16), box.spec("b")))
    busy.release()
    (await asyncio.wait_for(waiting, 10)).release()


async def test_pinned_models_stay_and_what_cannot_fit_is_refused(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a", pinned=True), box.spec("b"), max_loaded=1)
    await use(scheduler, "a")
    for call in (scheduler.lease, scheduler.load):
        error = await fails(call("b"), Unavailable)
        assert error.code == "no_room"
        assert "beside the models that are pinned" in error.message
    assert scheduler.loaded() == ["a"]
    await scheduler.unload("a")
    await use(scheduler, "b")


async def test_a_load_everyone_has_left_makes_room_for_another(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a", never_healthy=1), box.spec("b"), max_loaded=1)
    leaving = ask(scheduler, "a")
    await in_state(scheduler, "a", State.STARTING)
    b = ask(scheduler, "b")
    await queued(scheduler, "b", 1)
    assert status(scheduler, "a").state is State.STARTING  # somebody waits for it
    leaving.cancel()
    (await b).release()
    assert states(scheduler) == {"a": "stopped", "b": "ready"}
    assert status(scheduler, "a").deaths == 0


async def test_a_load_everyone_has_left_goes_on_if_nobody_needs_its_place(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a", start_delay=0.1))
    leaving = ask(scheduler, "a")
    await in_state(scheduler, "a", State.STARTING)
    leaving.cancel()
    await in_state(scheduler, "a", State.READY)


async def test_who_comes_back_while_an_abandoned_load_is_stopped_is_served(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    specs = box.spec("a", start_delay=0.2, ignore_term=1), box.spec("b")
    scheduler = make_scheduler(*specs, max_loaded=1, stop_grace=0.1)
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


async def test_idle_models_go_after_their_time(make_scheduler: MakeScheduler, box: Box) -> None:
    specs = box.spec("a", ttl=0.2), box.spec("b"), box.spec("c", pinned=True)
    scheduler = make_scheduler(*specs, idle_unload=0.4)
    started = time.monotonic()
    await asyncio.gather(*(scheduler.load(name) for name in "abc"))
    # On a busy machine the first may be gone again before the last is there.
    assert [status(scheduler, name).starts for name in "abc"] == [1, 1, 1]
    await in_state(scheduler, "a", State.STOPPED)
    await in_state(scheduler, "b", State.STOPPED)
    assert time.monotonic() - started >= 0.4
    assert states(scheduler) == {"a": "stopped", "b": "stopped", "c": "ready"}
    with await scheduler.lease("a"):  # no longer fresh, but in use
        await asyncio.sleep(0.3)  # longer than its ttl
        assert status(scheduler, "a").state is State.READY
    released = time.monotonic()
    await in_state(scheduler, "a", State.STOPPED)
    assert time.monotonic() - released >= 0.19


# --- failures ------------------------------------------------------------------------------


async def test_a_failed_load_fails_all_who_wait_and_is_not_repeated_for_them(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a", exit=3), box.spec("b"))
    results = await asyncio.gather(
        *(scheduler.lease("a") for _ in range(5)), scheduler.load("a"), return_exceptions=True
    )
    assert [type(error) for error in results] == [LoadFailed] * 6
    assert len({id(error) for error in results}) == 6
    assert all("does not want to start" in str(error) for error in results)
    assert status(scheduler, "a").starts == 1
    await use(scheduler, "b")


async def test_a_failed_one_comes_back_by_itself_and_says_when(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    once = box.folder / "once"
    scheduler = make_scheduler(
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


async def test_one_that_keeps_failing_is_given_up_until_loaded_explicitly(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a", exit=3), quick_deaths_allowed=3, backoff_first=0.01)
    for _ in range(3):
        await fails(scheduler.lease("a"), LoadFailed)
    assert status(scheduler, "a").state is State.FAILED
    error = await fails(scheduler.lease("a"), LoadFailed)
    assert "failed 3 times in a row" in error.message
    assert status(scheduler, "a").starts == 3
    await fails(scheduler.load("a"), LoadFailed)
    assert status(scheduler, "a").starts == 4
    assert status(scheduler, "a").state is State.BACKOFF


async def test_a_missing_file_is_looked_for_each_time(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a", model="nowhere.gguf"))
    for _ in range(6):
        error = await fails(scheduler.lease("a"), LoadFailed)
        assert error.code == "model_file_not_found"
    (box.folder / "nowhere.gguf").touch()
    await use(scheduler, "a")


async def test_crash_while_others_wait_is_followed_by_a_new_start(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a"))
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


async def test_a_dead_backend_is_not_handed_out(make_scheduler: MakeScheduler, box: Box) -> None:
    scheduler = make_scheduler(box.spec("a"))
    for _ in range(3):
        await use(scheduler)
        os.kill(status(scheduler, "a").pid, signal.SIGKILL)
        with await scheduler.lease("a") as lease:  # perhaps before anyone knows
            with contextlib.suppress(GatewayError):
                await lease.backend.pool.fetch(UpstreamRequest("GET", "/health"), timeout=5)
            await lease.backend.suspect()
        with await scheduler.lease("a") as lease:
            assert (
                await lease.backend.pool.fetch(UpstreamRequest("GET", "/health"), timeout=5)
            ).status == 200


async def test_nothing_waits_behind_a_model_in_backoff(
    make_scheduler: MakeScheduler, box: Box, tmp_path: Path
) -> None:
    specs = box.spec("a", exit_once=tmp_path / "once"), box.spec("b")
    scheduler = make_scheduler(*specs, max_loaded=1, backoff_first=60)
    await fails(scheduler.lease("a"), LoadFailed)
    a = ask(scheduler, "a")
    await queued(scheduler, "a", 1)
    await use(scheduler, "b")
    await scheduler.load("a")  # an explicit load ends the wait
    (await a).release()
