"""The end of a scheduler at any moment, and crowds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
from typing import Any

import pytest

from gateway.backends.backend import State
from gateway.errors import Unavailable
from gateway.models.local_model import LocalModel, Params
from gateway.tasks import spawn
from gateway.upstream import UpstreamRequest
from tests.backends.conftest import MakeScheduler
from tests.schedulers import ask, fails, in_state, queued, status, use
from tests.scripted import DEMO_GGUF, Box, says

# --- its life ------------------------------------------------------------------------------


async def test_scheduler_is_alive_while_it_decides_and_dead_when_it_cannot(
    make_scheduler: MakeScheduler, box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = make_scheduler(box.spec("a"))
    await use(scheduler)
    assert scheduler.is_alive()
    right = scheduler.limits

    scheduler.limits = None  # every decision asks for them

    assert not scheduler.is_alive()
    assert "the scheduler cannot decide" in caplog.text
    scheduler.limits = right
    assert scheduler.is_alive()
    await scheduler.close()
    assert scheduler.is_alive()  # until the very end


async def test_look_at_its_life_makes_up_for_a_decision_that_failed(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a", start_delay=0.2))
    waiting = ask(scheduler)
    await in_state(scheduler, "a", State.STARTING)
    right, scheduler.limits = scheduler.limits, None
    with contextlib.suppress(AttributeError):  # its backend's news are met by a scheduler that
        await scheduler.backend("a").ensure_ready()  # cannot decide who gets the slot
    scheduler.limits = right
    assert not waiting.done()

    assert scheduler.is_alive()

    (await waiting).release()


async def test_request_that_meets_a_scheduler_that_cannot_decide_leaves_the_queue(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a"))
    right, scheduler.limits = scheduler.limits, None

    with pytest.raises(AttributeError):
        await scheduler.lease("a")

    assert status(scheduler, "a").queued == 0
    scheduler.limits = right
    await use(scheduler)


# --- the end -------------------------------------------------------------------------------


async def test_refusing_new_ones_lets_the_running_finish(
    make_scheduler: MakeScheduler, box: Box, subtests: pytest.Subtests
) -> None:
    scheduler = make_scheduler(box.spec("a"), box.spec("b", never_healthy=1))
    running = await scheduler.lease("a")
    waiting = [ask(scheduler), ask(scheduler, "b"), spawn(scheduler.load("b"), name="load")]
    await queued(scheduler, "b", 2)
    scheduler.refuse_new()
    for task in waiting:
        error = await fails(task, Unavailable)
        assert (error.code, error.headers["Retry-After"]) == ("shutting_down", "10")
    assert scheduler.try_lease("a") is None
    for call in (scheduler.lease, scheduler.load, scheduler.unload):
        with subtests.test(f"{call!r:.80}"):
            assert (await fails(call("a"), Unavailable)).code == "shutting_down"
    assert (
        await running.backend.pool.fetch(UpstreamRequest("GET", "/health"), timeout=5)
    ).status == 200
    running.release()
    await scheduler.idle()


@pytest.mark.parametrize("ticks", [*range(10), None])
async def test_closing_at_any_moment_of_a_load_leaves_no_process(
    make_scheduler: MakeScheduler, box: Box, ticks: Any
) -> None:
    scheduler = make_scheduler(box.spec("a", never_healthy=1), box.spec("b", never_healthy=1))
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


async def test_closing_during_an_unload_leaves_no_process(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a", ignore_term=1), stop_grace=0.2)
    await use(scheduler)
    unloading = spawn(scheduler.unload("a"), name="unload")
    await in_state(scheduler, "a", State.STOPPING)
    await asyncio.gather(scheduler.close(), scheduler.close())
    await unloading
    assert box.alive() == []


async def test_closing_with_work_in_flight_leaves_no_process(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    scheduler = make_scheduler(box.spec("a"))
    running = await scheduler.lease("a")
    await scheduler.close()
    assert box.alive() == []
    running.release()


# --- all of it together --------------------------------------------------------------------


async def test_crowd_that_hangs_up_sees_no_error_while_children_are_killed(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    """Everyone is served, or hangs up; nobody sees an error that nobody caused."""
    specs = [box.spec(name, parallel=2) for name in "abc"]
    scheduler = make_scheduler(*specs, max_loaded=2, patience=0.1, quick_deaths_allowed=1000)
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


async def test_the_bundled_one_killed_while_idle_serves_the_next(
    make_scheduler: MakeScheduler, box: Box
) -> None:
    params = Params(model=DEMO_GGUF, ctx_size=256, threads=1)
    scheduler = make_scheduler(LocalModel(name="demo", params=params), llama_server="auto")
    await use(scheduler, "demo")
    os.kill(status(scheduler, "demo").pid, signal.SIGKILL)
    await in_state(scheduler, "demo", State.BACKOFF)
    with await scheduler.lease("demo") as lease:
        body = json.dumps({"prompt": "The sky is", "n_predict": 2}).encode()
        answer = await lease.backend.pool.fetch(
            UpstreamRequest("POST", "/completion", body=body), timeout=30
        )
        assert answer.status == 200
        assert json.loads(answer.body)["tokens_predicted"] == 2
