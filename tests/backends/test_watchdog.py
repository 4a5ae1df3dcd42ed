"""A child that lives and does nothing is noticed; one that works for long is left alone."""

from __future__ import annotations

import asyncio
import os
import signal

from scripted import Box, catalog_of, until

from gateway.backends.backend import State
from gateway.backends.policy import Limits
from gateway.backends.scheduler import Scheduler
from gateway.backends.watchdog import Patience, Watchdog, cpu_seconds
from gateway.errors import GatewayError
from gateway.tasks import cancel_and_wait, spawn

QUICK = Patience(interval=0.1, deaf_after=0.5, stuck_after=0.8)
CHAT = b'{"messages": [{"role": "user", "content": "x"}]}'


async def chat(scheduler: Scheduler, model: str) -> str:
    with await scheduler.lease(model) as lease:
        try:
            await lease.backend.pool.fetch("POST", "/v1/chat/completions", body=CHAT, timeout=60)
        except GatewayError as error:
            return error.message
    return ""


def scheduler_of(box: Box, **switches: object) -> Scheduler:
    return Scheduler(
        catalog_of(box.spec("a", **switches)),
        box.environment(patience=QUICK),
        Limits(),
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
    scheduler = scheduler_of(box, busy=1)
    await scheduler.load("a")
    backend = scheduler.backend("a")
    assert backend is not None
    assert backend.pid is not None
    asked = spawn(chat(scheduler, "a"), name="a long prompt")
    watching = spawn(Watchdog(backend.pool, backend.pid, QUICK).hung(), name="watch")
    done, _ = await asyncio.wait([watching, asked], timeout=3 * QUICK.stuck_after)
    while not done and (cpu_seconds(backend.pid) or 0) <= QUICK.stuck_after:  # a busy machine
        done, _ = await asyncio.wait([watching, asked], timeout=0.1)
    assert not done
    await cancel_and_wait(watching, asked)
    assert scheduler.in_flight == 0
    await scheduler.close()
