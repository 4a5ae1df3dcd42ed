"""A child that lives and does nothing is noticed; one that works for long is left alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

from gateway.backends.backend import Backend, State
from gateway.backends.decision import SchedulingLimits
from gateway.backends.scheduler import Scheduler
from gateway.backends.speed import Speed
from gateway.backends.watchdog import Hang, Patience, Watchdog, cpu_seconds
from gateway.errors import GatewayError
from gateway.tasks import cancel_and_wait, spawn
from gateway.upstream import UpstreamRequest
from tests.scripted import Box, catalog_of, until

QUICK = Patience(interval=0.1, deaf_after=0.5, stuck_after=0.8)
CHAT = b'{"messages": [{"role": "user", "content": "x"}]}'


async def chat(scheduler: Scheduler, model: str) -> str:
    with await scheduler.lease(model) as lease:
        try:
            await lease.backend.pool.fetch(
                UpstreamRequest("POST", "/v1/chat/completions", body=CHAT), timeout=60
            )
        except GatewayError as error:
            return error.message
    return ""


def scheduler_of(box: Box, patience: Patience = QUICK, **switches: object) -> Scheduler:
    return Scheduler(
        catalog_of(box.spec("a", **switches)),
        box.environment(patience=patience),
        SchedulingLimits(),
        queue_size=8,
        queue_timeout=20,
    )


async def test_a_stopped_child_is_replaced(box: Box) -> None:
    scheduler = scheduler_of(box)
    await scheduler.load("a")
    (before,) = scheduler.status()
    assert before.pid is not None
    os.kill(before.pid, signal.SIGSTOP)
    await until(scheduler, lambda: scheduler.status()[0].deaths == 1)
    assert "has not answered /health" in (scheduler.status()[0].last_error or "")
    assert await chat(scheduler, "a") == ""
    assert scheduler.status()[0].pid != before.pid
    await scheduler.close()


async def test_a_child_that_hangs_in_a_request_is_ended(box: Box) -> None:
    scheduler = scheduler_of(box, hang=1)
    await scheduler.load("a")
    assert await chat(scheduler, "a") != ""
    await until(scheduler, lambda: scheduler.status()[0].state is not State.READY)
    assert "has done nothing" in (scheduler.status()[0].last_error or "")
    await scheduler.close()


async def test_a_long_prompt_is_no_hang(box: Box) -> None:
    # On a machine that is busy with other things, too, it gets some of the CPU within.
    patience = Patience(interval=0.1, deaf_after=10, stuck_after=2)
    scheduler = scheduler_of(box, patience, busy=1)
    await scheduler.load("a")
    backend = scheduler.backend("a")
    assert backend is not None
    assert backend.pid is not None
    asked = spawn(chat(scheduler, "a"), name="a long prompt")
    speed = Speed(backend.log, 0)
    pool: Any = backend.pool
    watchdog = Watchdog(pool, backend.pid, patience, backend.flights, speed)
    watching = spawn(watchdog.hung(), name="watch")
    done, _ = await asyncio.wait([watching, asked], timeout=3 * patience.stuck_after)
    while not done and (cpu_seconds(backend.pid) or 0) <= patience.stuck_after:  # a busy machine
        done, _ = await asyncio.wait([watching, asked], timeout=0.1)
    assert not done
    await cancel_and_wait(watching, asked)
    assert scheduler.in_flight == 0
    await scheduler.close()


async def test_a_prompt_that_is_read_slowly_is_no_hang(box: Box) -> None:
    """However long it takes: what /slots says goes on."""
    patience = Patience(interval=0.05, overdue_after=0.3, left_after=0.3)
    os.truncate(box.model, 2**30)  # such a big one may take half a second for each token
    scheduler = Scheduler(
        catalog_of(box.spec("slow", busy=1, reads_on=1), box.spec("stuck", busy=1)),
        box.environment(patience=patience, quick_deaths_allowed=1),
        SchedulingLimits(),
        queue_size=8,
        queue_timeout=20,
    )
    slow = spawn(chat(scheduler, "slow"), name="slow")
    assert await chat(scheduler, "stuck") != ""
    await until(scheduler, lambda: scheduler.status()[1].deaths == 1)
    assert "has computed for" in (scheduler.status()[1].last_error or "")
    await until(scheduler, lambda: scheduler.status()[1].state is State.BACKOFF)  # not failed
    backend = scheduler.backend("slow")
    assert backend is not None
    assert backend.pid is not None
    while (cpu_seconds(backend.pid) or 0) < 4 * patience.overdue_after:
        done, _ = await asyncio.wait([slow], timeout=0.05)
        assert not done
    assert scheduler.status()[0].deaths == 0
    await cancel_and_wait(slow)
    await scheduler.close()


@contextlib.asynccontextmanager
async def watched(
    box: Box, patience: Patience, **switches: object
) -> AsyncIterator[tuple[Scheduler, Backend, asyncio.Task[Hang]]]:
    """A child that only this watchdog looks at."""
    scheduler = Scheduler(
        catalog_of(box.spec("a", **switches)),
        box.environment(),
        SchedulingLimits(),
        queue_size=8,
        queue_timeout=20,
    )
    await scheduler.load("a")
    backend = scheduler.backend("a")
    assert backend is not None
    assert backend.pid is not None
    speed = Speed(backend.log, 0)
    pool: Any = backend.pool
    watchdog = Watchdog(pool, backend.pid, patience, backend.flights, speed)
    watching = spawn(watchdog.hung(), name="watch")
    try:
        yield scheduler, backend, watching
    finally:
        os.kill(backend.pid, signal.SIGCONT)
        await cancel_and_wait(watching)
        await scheduler.close()


async def test_a_pause_of_everything_is_no_hang(box: Box) -> None:
    """A container that was frozen, with a request at its child: that has all its time again."""
    patience = Patience(interval=0.05, stuck_after=2.0)
    async with watched(box, patience, hang=1) as (scheduler, _, watching):
        asked = spawn(chat(scheduler, "a"), name="asked")
        done, _ = await asyncio.wait([watching, asked], timeout=0.3)  # it has looked, and waits
        assert not done
        time.sleep(patience.stuck_after)  # nothing goes on meanwhile
        resumed = time.monotonic()
        assert "has done nothing" in (await watching).what
        assert time.monotonic() - resumed > patience.stuck_after / 2
        await cancel_and_wait(asked)


async def test_who_comes_to_a_stopped_child_has_not_stopped_it(box: Box) -> None:
    """Whenever it comes: so that it is sent again, and nobody is told that it may have done it."""
    patience = Patience(interval=0.1, deaf_after=0.3)
    async with watched(box, patience) as (scheduler, backend, watching):
        assert backend.pid is not None
        os.kill(backend.pid, signal.SIGSTOP)
        await asyncio.wait([watching], timeout=0.5)  # two misses of three
        asked = spawn(chat(scheduler, "a"), name="asked")
        hang = await watching
        os.kill(backend.pid, signal.SIGCONT)
        assert await asked == ""
        assert hang.stopped
