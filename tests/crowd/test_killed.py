"""Real llama-servers that are killed: idle, while they load, while they answer."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.backends.backend import Backend, State
from gateway.tasks import spawn
from tests.crowd.programs import (
    MEMORY,
    Program,
    answer,
    answers,
    entries,
    pid_of,
    question,
    status,
    streaming,
)
from tests.harness import MakeGateway, Running
from tests.scripted import says, until

pytestmark = pytest.mark.slow


def backend(running: Running, model: str) -> Backend:
    found = running.gateway.scheduler.backend(model)
    assert found is not None
    return found


async def died(running: Running, model: str, deaths: int = 1) -> None:
    scheduler = running.gateway.scheduler
    await until(scheduler, lambda: status(running, model).deaths == deaths, seconds=20)


async def test_llama_server_killed_while_idle_starts_again(
    make_gateway: MakeGateway, program: Program, tiny_model: Path
) -> None:
    async with make_gateway(
        entries(tiny_model, "a"), llama_server=str(program.path), scheduler=MEMORY
    ) as running:
        await answers(running, "a")
        os.kill(pid_of(running, "a"), signal.SIGKILL)
        await died(running, "a")
        await answers(running, "a")
        # And once more without anybody noticing before the next request does.
        os.kill(pid_of(running, "a"), signal.SIGKILL)
        await answers(running, "a")
        assert status(running, "a").deaths == 2
        assert [start.beside for start in program.starts] == [[], [], []]


async def test_llama_server_killed_while_loading_is_tried_once_more(
    make_gateway: MakeGateway, program: Program, tiny_model: Path
) -> None:
    """It may have been the system, for want of memory: once more with the others out of it."""
    async with make_gateway(
        entries(tiny_model, "a", "b"), llama_server=str(program.path), scheduler=MEMORY
    ) as running:
        asked = spawn(answer(running, "a"), name="a request")
        await says(backend(running, "a"), "the script starts")
        os.kill(program.starts[-1].pid, signal.SIGKILL)
        code, body = await asked
        assert code == 500
        assert "was killed (SIGKILL)" in body["error"]["message"]
        await answers(running, "a")
        asked = spawn(answer(running, "b"), name="a request")
        await says(backend(running, "b"), "the script starts")
        os.kill(program.starts[-1].pid, signal.SIGKILL)
        code, body = await asked
        assert code == 200, body
        assert status(running, "a").state is State.STOPPED
        assert [len(start.beside) for start in program.starts] == [0, 0, 1, 0]


async def test_request_is_sent_again_if_killed_before_its_first_byte(
    make_gateway: MakeGateway, program: Program, tiny_model: Path
) -> None:
    async with make_gateway(
        entries(tiny_model, "a"), llama_server=str(program.path), scheduler=MEMORY
    ) as running:
        await answers(running, "a")
        for stream in (True, False):
            pid = pid_of(running, "a")
            os.kill(pid, signal.SIGSTOP)  # so that it has the request and answers nothing
            body = question("a", stream=stream)
            asked = spawn(_text(running, body), name="a request")
            sent = backend(running, "a").pool
            async with asyncio.timeout(10):
                while not sent.exchanges:
                    await asyncio.sleep(0.01)  # nothing tells
            os.kill(pid, signal.SIGKILL)
            code, text = await asked
            assert code == 200, text
            assert text.rstrip().endswith("data: [DONE]" if stream else "}")
        assert status(running, "a").deaths == 2


async def _text(running: Running, body: Any) -> tuple[int, str]:
    async with running.request("POST", "/v1/chat/completions", json=body) as response:
        return response.status, await response.text()


async def test_stream_says_that_its_llama_server_was_killed(
    make_gateway: MakeGateway, program: Program, tiny_model: Path
) -> None:
    async with make_gateway(
        entries(tiny_model, "a"), llama_server=str(program.path), scheduler=MEMORY
    ) as running:
        async with streaming(running, "a", 10_000) as stream:
            os.kill(pid_of(running, "a"), signal.SIGKILL)
            with pytest.raises(aiohttp.ClientPayloadError):  # never a clean end
                await stream.rest()
            assert stream.events[-1]["error"]["code"]
            assert "[DONE]" not in stream.events
        await answers(running, "a")
