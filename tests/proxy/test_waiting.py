"""Clients that wait for a model: kept informed, refused in time, and missed when they leave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from gateway.backends.backend import State
from gateway.backends.model_status import ModelStatus
from gateway.tasks import cancel_and_wait, spawn
from tests.harness import MakeGateway, Running, fake_model
from tests.scripted import until

HELLO: Any = [{"role": "user", "content": "hi"}]
COMMENT = re.compile(r": (starting|restarting|queued), position (\d+), (\d+) s")


@pytest.fixture
def make_gateway(make_gateway: MakeGateway) -> MakeGateway:
    """Gateways that are quick to tell."""

    def make(*models: Any, limits: dict[str, Any] | None = None, **settings: Any) -> Any:
        return make_gateway(*models, limits={"heartbeat": "0.4s", **(limits or {})}, **settings)

    return make


@contextlib.asynccontextmanager
async def asking(running: Running, model: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """A streaming request, as soon as anything has come back."""
    body = {"model": model, "messages": HELLO, "stream": True}
    async with running.request("POST", "/v1/chat/completions", json=body) as response:
        yield response


@contextlib.asynccontextmanager
async def busy(running: Running) -> AsyncIterator[aiohttp.ClientResponse]:
    """A stream that has the only slot of the model "m"."""
    await running.gateway.scheduler.load("m")
    async with asking(running, "m") as response:
        assert (await line(response)).startswith("data: ")
        yield response


async def line(response: aiohttp.ClientResponse) -> str:
    """The next line that is not empty."""
    async with asyncio.timeout(10):
        while data := await response.content.readline():
            if text := data.decode().strip():
                return text
    return ""


async def starts(response: aiohttp.ClientResponse) -> None:
    """Wait until the client is told that its model starts; it may have to queue before."""
    while not (text := await line(response)).startswith(": starting"):
        assert text.startswith(": queued")


def status(running: Running, model: str) -> ModelStatus:
    return next(s for s in running.gateway.scheduler.status() if s.name == model)


async def queued(running: Running, model: str, count: int) -> None:
    await until(running.gateway.scheduler, lambda: status(running, model).queued == count)


async def test_a_stream_is_told_while_its_model_loads(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"slow": fake_model(tmp_path, start_delay=1.5)}) as running:
        async with asking(running, "slow") as response:
            assert response.status == 200
            assert response.headers["Content-Type"].startswith("text/event-stream")
            assert response.headers["X-Accel-Buffering"] == "no"
            assert response.headers["Cache-Control"] == "no-cache"
            comments = []
            while (text := await line(response)).startswith(":"):
                comments.append(text)
            # It may be ready, and not have answered yet.
            loading = [text for text in comments if not text.startswith(": working")]
            told = [match.groups() for text in loading if (match := COMMENT.fullmatch(text))]
            assert len(told) == len(loading)
            assert {position for _, position, _ in told} == {"1"}
            # "queued" before, while it isn't known yet how much memory there is, and in the moment
            # between its being ready and its answer.
            stages = [stage for stage, *_ in told]
            assert set(stages) <= {"queued", "starting"}
            assert stages.count("starting") >= 3
            seconds = [int(second) for *_, second in told]
            assert seconds == sorted(seconds)
            assert seconds[-1] >= 1
            assert json.loads(text.removeprefix("data: "))["choices"][0]["delta"]
            rest = await response.text()
        assert "word4" in rest
        assert rest.endswith("data: [DONE]\n\n")
        async with asking(running, "slow") as response:  # loaded: not a word too many
            assert not (await response.text()).startswith(":")


async def test_a_client_library_reads_through_the_comments(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with (
        make_gateway({"slow": fake_model(tmp_path, start_delay=1)}) as running,
        running.openai() as client,
    ):
        stream = await client.chat.completions.create(model="slow", messages=HELLO, stream=True)
        text = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(text) == "word0 word1 word2 word3 word4 "


async def test_who_wants_no_stream_just_waits(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway({"slow": fake_model(tmp_path, start_delay=1)}) as running:
        body = {"model": "slow", "messages": HELLO}
        async with running.request("POST", "/v1/chat/completions", json=body) as response:
            assert response.status == 200
            assert response.headers["Content-Type"].startswith("application/json")
            assert (await response.read()).startswith(b"{")


async def test_the_place_in_the_queue_is_told(make_gateway: MakeGateway, tmp_path: Path) -> None:
    model = fake_model(tmp_path, chunks=20, pause=0.1)
    async with (
        make_gateway({"m": model}) as running,
        busy(running) as first,
        asking(running, "m") as second,
        asking(running, "m") as third,
    ):
        assert (await line(second)).startswith(": queued, position 1, ")
        assert (await line(third)).startswith(": queued, position 2, ")
        assert (await first.text()).endswith("data: [DONE]\n\n")
        seen = [await line(third)]
        while seen[-1].startswith(":"):
            seen.append(await line(third))
        assert any(": queued, position 1, " in text for text in seen)  # it has moved up
        for response in (second, third):
            assert (await response.text()).endswith("data: [DONE]\n\n")


async def test_a_load_that_fails_after_comments_is_an_error_and_no_clean_end(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway(
        {"never": fake_model(tmp_path, never_healthy=1)}, limits={"load_timeout": "1s"}
    ) as running:
        async with asking(running, "never") as response:
            assert response.status == 200
            while (text := await line(response)).startswith(":"):
                pass
            error = json.loads(text.removeprefix("data: "))["error"]
            assert error["code"] == "model_load_failed"
            assert "made no progress for 1 s" in error["message"]
            assert "fake llama-server starts" in error["message"]  # its last line
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        async with running.openai() as client:
            stream = await client.chat.completions.create(
                model="never", messages=HELLO, stream=True
            )
            with pytest.raises(openai.APIError, match="made no progress"):
                await anext(aiter(stream))


async def test_a_load_that_fails_before_them_is_a_plain_error(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with (
        make_gateway({"bad": fake_model(tmp_path, exit=3)}, limits={"heartbeat": "10s"}) as running,
        asking(running, "bad") as response,
    ):
        assert response.status == 500
        assert response.headers["x-should-retry"] == "false"
        assert "status 3" in (await response.json())["error"]["message"]


async def test_a_full_queue_is_said_before_any_byte(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    model = fake_model(tmp_path, chunks=100, pause=0.1)
    async with make_gateway({"m": model}, limits={"queue_size": 1}) as running:
        async with busy(running), asking(running, "m") as second:
            assert (await line(second)).startswith(": queued")
            for stream in (True, False):
                began = time.monotonic()
                body = {"model": "m", "messages": HELLO, "stream": stream}
                async with running.request("POST", "/v1/chat/completions", json=body) as third:
                    assert third.status == 503
                    assert third.headers["Retry-After"] == "5"
                    assert (await third.json())["error"]["code"] == "queue_full"
                assert time.monotonic() - began < 1
        await running.gateway.scheduler.idle()


async def test_who_hangs_up_leaves_the_queue(make_gateway: MakeGateway, tmp_path: Path) -> None:
    """With and without comments on the way already, and whether or not a stream was wanted."""
    model = fake_model(tmp_path, chunks=1000, pause=0.1)
    async with make_gateway({"m": model}) as running, busy(running):
        async with asking(running, "m") as second:
            assert (await line(second)).startswith(": queued")
            assert status(running, "m").queued == 1
        await queued(running, "m", 0)
        asked = spawn(running.chat("m"), name="a client")
        await queued(running, "m", 1)
        await cancel_and_wait(asked)
        await queued(running, "m", 0)
        assert status(running, "m").in_flight == 1


async def test_a_load_nobody_waits_for_any_more_makes_room(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = {"never": fake_model(tmp_path, never_healthy=1), "good": fake_model(tmp_path)}
    async with make_gateway(models, scheduler={"max_loaded": 1}) as running:
        async with asking(running, "never") as response:
            await starts(response)
        await queued(running, "never", 0)
        assert status(running, "never").state is State.STARTING  # in case somebody comes back
        code, answer = await running.chat("good")
        assert code == 200, answer
        assert status(running, "never").state is State.STOPPED
        assert status(running, "never").deaths == 0


async def test_the_end_of_the_gateway_is_told_to_those_who_wait(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with (
        make_gateway({"never": fake_model(tmp_path, never_healthy=1)}) as running,
        asking(running, "never") as response,
    ):
        await starts(response)
        running.gateway.scheduler.refuse_new()
        while (text := await line(response)).startswith(":"):
            pass
        assert json.loads(text.removeprefix("data: "))["error"]["code"] == "shutting_down"
