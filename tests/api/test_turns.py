"""Clients of several models with room for one: they take turns, not a load for each request."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from gateway.tasks import cancel_and_wait, spawn
from tests.harness import MakeGateway, Running


class Client:
    """Asks for one model again and again."""

    def __init__(self, running: Running, model: str) -> None:
        self._running = running
        self._model = model
        self.waits: list[float] = []

    async def ask(self, count: int, pause: float) -> None:
        for _ in range(count):
            asked = time.monotonic()
            status, answer = await self._running.chat(self._model, max_tokens=1)
            assert status == 200, answer
            self.waits.append(time.monotonic() - asked)
            await asyncio.sleep(pause)


def loads(running: Running) -> int:
    return sum(status.starts for status in running.gateway.scheduler.status())


async def test_two_clients_in_turn_are_few_loads(
    make_gateway: MakeGateway, tiny_model: Path
) -> None:
    entry = {"params": {"model": str(tiny_model), "ctxSize": 256, "threads": 1}}
    async with make_gateway(
        {"a": entry, "b": entry}, llama_server="auto", scheduler={"max_loaded": 1}
    ) as running:
        a, b = Client(running, "a"), Client(running, "b")
        await asyncio.gather(a.ask(15, 0.02), b.ask(15, 0.02))
        took = [status.load_seconds for status in running.gateway.scheduler.status()]
        turn = running.gateway.scheduler.limits.shares * sum(seconds or 0 for seconds in took)
        assert loads(running) <= 6  # it was one for each of 30 requests
        assert max(a.waits + b.waits) < max(turn, 2) + sum(s or 0 for s in took) + 10


async def test_a_newcomer_waits_for_a_turn_and_no_longer(
    make_gateway: MakeGateway, tiny_model: Path
) -> None:
    """Somebody who asks without a pause does not keep others out."""
    entry = {"params": {"model": str(tiny_model), "ctxSize": 256, "threads": 1}}
    async with make_gateway(
        {"a": entry, "b": entry}, llama_server="auto", scheduler={"max_loaded": 1}
    ) as running:
        assert (await running.chat("a", max_tokens=1))[0] == 200
        greedy = spawn(Client(running, "a").ask(100_000, 0), name="a greedy client")
        newcomer = Client(running, "b")
        async with asyncio.timeout(40):
            await newcomer.ask(1, 0)
        await cancel_and_wait(greedy)
        assert loads(running) <= 3


async def test_a_single_client_of_two_models_waits_for_loads_only(
    make_gateway: MakeGateway, tiny_model: Path
) -> None:
    """A chat and its title; a model that completes code beside one that explains it."""
    entry = {"params": {"model": str(tiny_model), "ctxSize": 256, "threads": 1}}
    async with make_gateway(
        {"a": entry, "b": entry}, llama_server="auto", scheduler={"max_loaded": 1}
    ) as running:
        over = []
        for name in "abababab":
            backend = running.gateway.scheduler.backend(name)
            assert backend is not None
            asked = time.monotonic()
            assert (await running.chat(name, max_tokens=1))[0] == 200
            over.append(time.monotonic() - asked - (backend.load_seconds or 0))
        assert loads(running) == 8
        assert (
            sorted(over)[4] < 0.6
        )  # it was a second, of nothing but waiting; now a few hundredths


async def test_two_clients_that_pause_are_still_few_loads(
    make_gateway: MakeGateway, tiny_model: Path
) -> None:
    """One asks while the other reads, so that they don't meet at every request."""
    entry = {"params": {"model": str(tiny_model), "ctxSize": 256, "threads": 1}}
    async with make_gateway(
        {"a": entry, "b": entry}, llama_server="auto", scheduler={"max_loaded": 1}
    ) as running:
        a, b = Client(running, "a"), Client(running, "b")
        await asyncio.gather(a.ask(8, 0.5), b.ask(7, 0.5))
        assert loads(running) <= 8  # 15 where each is taken for the other
