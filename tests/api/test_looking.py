"""Looking is not use: what only asks how a model is doing changes nothing about it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from gateway.backends.backend import State
from gateway.tasks import spawn
from tests.harness import DEMO_GGUF, MakeGateway, Running, fake_model, opened
from tests.scripted import until

#: Every way to look at a model, for administrators.
LOOKS = (
    "/slots?model={}",
    "/metrics?model={}",
    "/props?model={}",
    "/lora-adapters?model={}",
    "/v1/models",
    "/v1/models/{}",
    "/models?loaded=true",
    "/admin/models",
    "/admin/status",
    "/admin/models/{}/log?follow=false",
    "/upstream/{}/slots",
    "/upstream/{}/metrics",
    "/upstream/{}/v1/models",
)


def state(running: Running, model: str) -> State:
    backend = running.gateway.scheduler.backend(model)
    assert backend is not None
    return backend.state


async def look(running: Running, path: str, model: str) -> int:
    async with running.request("GET", path.format(model)) as response:
        await response.read()
        return int(response.status)


@pytest.mark.parametrize("path", LOOKS)
async def test_looking_puts_off_no_unloading(
    make_gateway: MakeGateway, tmp_path: Path, path: str
) -> None:
    async with make_gateway({"m": {**fake_model(tmp_path), "ttl": "700ms"}}) as running:
        assert (await running.chat("m"))[0] == 200
        asked = time.monotonic()
        while state(running, "m") is State.READY:
            assert await look(running, path, "m") in (200, 404, 400)
            assert time.monotonic() - asked < 5, "it is kept for ever"
            await asyncio.sleep(0.02)
        assert time.monotonic() - asked > 0.65


async def test_a_real_one_is_looked_at_and_goes_in_its_time(make_gateway: MakeGateway) -> None:
    model = {"params": {"model": DEMO_GGUF, "ctxSize": 256, "threads": 1}, "ttl": "1s"}
    real = {**model, "extraArgs": ["--metrics"]}
    async with make_gateway({"m": real}, llama_server="auto") as running:
        status, _ = await running.chat("m", max_tokens=1)
        assert status == 200
        used = time.monotonic()
        assert await look(running, "/slots?model={}", "m") == 200
        assert await look(running, "/props?model={}", "m") == 200
        while state(running, "m") is State.READY:
            assert await look(running, "/metrics?model={}", "m") in (200, 400)
            assert time.monotonic() - used < 5
            await asyncio.sleep(0.02)


async def test_looking_is_no_use_for_who_goes_first(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = {name: fake_model(tmp_path) for name in "abc"}
    async with make_gateway(models, scheduler={"max_loaded": 2}) as running:
        for name in "ab":
            assert (await running.chat(name))[0] == 200
        for path in LOOKS:
            await look(running, path, "a")
        assert (await running.chat("c"))[0] == 200
        assert state(running, "a") is State.STOPPED
        assert state(running, "b") is State.READY


@pytest.mark.parametrize("path", ["/slots?model={}", "/upstream/{}/slots"])
async def test_a_look_under_way_keeps_no_model_and_ends_well(
    make_gateway: MakeGateway, tmp_path: Path, path: str
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    async with make_gateway({"m": fake_model(tmp_path, look=gate)}) as running:
        assert (await running.chat("m"))[0] == 200
        backend = running.gateway.scheduler.backend("m")
        assert backend is not None
        looking = spawn(running.json("GET", path.format("m")), name="look")
        while not backend.pool.exchanges:
            await asyncio.sleep(0.01)
        assert running.gateway.scheduler.in_flight == 0
        async with asyncio.timeout(10):  # the gate is still closed
            await running.gateway.scheduler.unload("m")
            status, answer = await looking
        assert (status, answer["error"]["code"]) == (400, "model_not_loaded")
        await asyncio.sleep(0.05)  # nothing must happen meanwhile
        assert state(running, "m") is State.STOPPED
        assert backend.starts == 1


async def test_a_look_that_its_model_dies_under_tells_the_reason(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    async with make_gateway({"m": fake_model(tmp_path, look=gate)}) as running:
        assert (await running.chat("m"))[0] == 200
        backend = running.gateway.scheduler.backend("m")
        assert backend is not None
        assert backend.pid is not None
        looking = spawn(running.json("GET", "/slots?model=m"), name="look")
        while not backend.pool.exchanges:
            await asyncio.sleep(0.01)
        os.kill(backend.pid, signal.SIGKILL)
        status, answer = await looking
        assert status == 502
        assert "was killed (SIGKILL)" in answer["error"]["message"]


async def test_a_busy_model_is_looked_at_beside_its_work(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    async with make_gateway({"m": fake_model(tmp_path, gate=gate)}) as running:
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
        async with running.request("POST", "/v1/chat/completions", json=body) as stream:
            assert await stream.content.readline()
            status, slots = await running.json("GET", "/slots?model=m")
            assert (status, slots) == (200, [{"is_processing": True}])
            with opened(gate):
                assert (await stream.text()).endswith("data: [DONE]\n\n")
        await until(running.gateway.scheduler, lambda: running.gateway.scheduler.in_flight == 0)
