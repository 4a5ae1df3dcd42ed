"""Many clients of several real llama-servers, which come, go and die."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.backends.scheduler import Scheduler
from tests.crowd.programs import MEMORY, Program, answers, entries, pid_of, question, status
from tests.harness import MakeGateway, Running, alive
from tests.scripted import until

pytestmark = pytest.mark.slow


class Crowd:
    """Clients that ask one thing after the other, and often hang up in the middle of it."""

    def __init__(self, running: Running, models: str, seconds: float) -> None:
        self._running = running
        self._models = models
        self._until = time.monotonic() + seconds
        self._dice = random.Random(4)
        self.served: Counter[str] = Counter()
        self.refused = 0
        self.hung_up = 0
        self.broken = 0
        self.errors: list[str] = []

    async def client(self) -> None:
        dice = self._dice
        while time.monotonic() < self._until:
            model = dice.choice(self._models)
            patience = dice.choice([0.005, 0.05, 0.3, 2.0, 30.0, 30.0])
            body = question(model, dice.choice([1, 20, 300]), stream=dice.random() < 0.7)
            try:
                async with asyncio.timeout(patience):
                    await self._ask(model, body)
            except TimeoutError:
                self.hung_up += 1
            except aiohttp.ClientPayloadError:  # a stream without a clean end
                self.broken += 1
            except aiohttp.ClientError as error:
                self.errors.append(repr(error))

    async def _ask(self, model: str, body: Any) -> None:
        async with self._running.request("POST", "/v1/chat/completions", json=body) as response:
            text = await response.text()
            if response.status == 503 and "Retry-After" in response.headers:
                self.refused += 1
                await asyncio.sleep(0.2)  # as a client that is told to come again
            elif response.status != 200 or not _complete(text, stream=body["stream"]):
                self.errors.append(f"{response.status} {text[-500:]}")
            else:
                self.served[model] += 1


def _complete(text: str, *, stream: bool) -> bool:
    if stream:
        return text.endswith("data: [DONE]\n\n") and '"finish_reason":"length"' in text
    return json.loads(text)["choices"][0]["finish_reason"] == "length"


async def hurried(running: Running) -> Scheduler:
    """A scheduler that lets models take turns more often than is good for them."""
    scheduler = running.gateway.scheduler
    await until(scheduler, lambda: scheduler.limits.budget is not None)
    scheduler.limits = replace(scheduler.limits, patience=0.5, shares=0.5, shortest_turn=0.5)
    return scheduler


async def test_crowd_meets_no_error_but_come_back_later(
    make_gateway: MakeGateway,
    program: Program,
    tiny_model: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """50 clients, 3 models, memory for 2, for a minute: no error but "come back later"."""
    async with make_gateway(
        entries(tiny_model, "a", "b", "c", parallel=2),
        llama_server=str(program.path),
        scheduler=MEMORY,
        limits={"queue_size": 18},
    ) as running:
        scheduler = await hurried(running)
        crowd = Crowd(running, "abc", 60)
        await asyncio.gather(*(crowd.client() for _ in range(50)))
        assert crowd.errors == []
        assert not crowd.broken
        assert all(crowd.served[model] > 10 for model in "abc"), crowd.served
        assert crowd.refused
        assert crowd.hung_up > 30
        async with asyncio.timeout(10):
            await scheduler.idle()  # what the last ones left behind may take a moment
        assert all(s.in_flight == s.queued == s.deaths == 0 for s in scheduler.status())
        assert len(program.starts) > 3  # they took turns
        assert max(len(start.beside) for start in program.starts) == 1
    loud = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not loud  # that clients hang up is nothing to write about
    assert not [start for start in program.starts if alive(start.pid)]


async def test_killer_ends_only_streams_that_had_begun(
    make_gateway: MakeGateway,
    program: Program,
    tiny_model: Path,
) -> None:
    """Only streams that had begun are lost with a process, and they say so."""
    async with make_gateway(
        entries(tiny_model, "a", "b", "c", parallel=2),
        llama_server=str(program.path),
        scheduler=MEMORY,
    ) as running:
        scheduler = await hurried(running)
        crowd = Crowd(running, "abc", 8)

        async def kill(model: str) -> None:
            await until(scheduler, lambda: status(running, model).in_flight == 2, seconds=20)
            os.kill(pid_of(running, model), signal.SIGKILL)

        await asyncio.gather(*map(kill, "abc"), *(crowd.client() for _ in range(10)))
        assert crowd.errors == []
        assert crowd.broken <= 3 * 2  # what ran in those moments
        assert all(crowd.served[model] for model in "abc"), crowd.served
        async with asyncio.timeout(10):
            await scheduler.idle()
        assert all(s.in_flight == s.queued == 0 and s.deaths == 1 for s in scheduler.status())
        assert max(len(start.beside) for start in program.starts) == 1
        for model in "abc":
            await answers(running, model)
