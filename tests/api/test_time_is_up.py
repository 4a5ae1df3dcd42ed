"""Answers that take longer than one request may: at a real llama-server, in every dialect."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.errors import TimeIsUp
from gateway.proxy.ending import Endings
from gateway.tasks import cancel_and_wait, spawn
from tests.dialects import ROUTES
from tests.harness import MakeGateway, Running, fake_model

#: The model says letters for as long as its context lasts, which is longer than any test.
#: For Anthropic's messages llama-server's own limit would be 4,096 tokens: two seconds.
ENDLESS = {"grammar": "root ::= [a-z ]+", "ignore_eos": True, "max_tokens": 30_000}
ANTHROPIC = "/v1/messages"


@pytest.fixture
async def running(make_gateway: MakeGateway, tiny_model: Path) -> AsyncIterator[Running]:
    params = {"model": str(tiny_model), "threads": 1, "ctxSize": 8 * 8192, "nPredict": 30000}
    models = {"m": {"params": params, "setParams": ENDLESS, "parallel": 8}}
    limits = {"request": {"time": "2s"}}
    async with make_gateway(models, llama_server="auto", limits=limits) as running:
        await running.gateway.scheduler.load("m")
        yield running


def at(path: str, query: str) -> tuple[str, dict[str, Any]]:
    return path + query, {"model": "m", **ROUTES[path], "temperature": 0}


async def all_of(answer: aiohttp.ClientResponse) -> bytes:
    """What came of an answer; one that is cut off can't look complete."""
    said = b""
    with contextlib.suppress(aiohttp.ClientPayloadError):
        async for piece in answer.content.iter_any():
            said += piece
    return said


PATHS = [path for path in ROUTES if path not in ("/infill", ANTHROPIC)]


async def test_it_ends_with_words_in_each_dialect(running: Running) -> None:
    """At both doors: with a query it is aiohttp that serves it."""

    async def whole(path: str, query: str) -> None:
        target, body = at(path, query)
        status, answer = await running.json("POST", target, json=body)
        assert status == 504, (path, answer)
        assert answer["error"]["code"] == "request_time"
        assert "(limits.request.time)" in answer["error"]["message"]

    async def streamed(path: str, query: str) -> None:
        target, body = at(path, query)
        async with running.request("POST", target, json={**body, "stream": True}) as events:
            assert events.status == 200, path
            said = await all_of(events)
        last = [line for line in said.split(b"\n") if line.startswith(b"data: ")][-1]
        assert b"request_time" in last, (path, last)
        assert said.count(b"\ndata: ") > 3, path  # some of the answer had come

    await asyncio.gather(
        *(whole(path, query) for path, query in zip(PATHS, ("", "?x", "", ""), strict=False)),
        *(streamed(path, query) for path, query in zip(PATHS, ("?x", "", "", ""), strict=False)),
    )
    assert not running.gateway.scheduler.in_flight  # its slot is free


async def test_what_it_took_is_counted(running: Running) -> None:
    target, body = at("/v1/chat/completions", "")

    async def ask(stream: bool) -> None:
        async with running.request("POST", target, json={**body, "stream": stream}) as answer:
            await all_of(answer)

    await asyncio.gather(ask(False), ask(True))
    while len(recent := running.gateway.accounting.recent) < 2:
        await asyncio.sleep(0.01)
    assert [record.status for record in recent] == [504, 504]
    assert min(record.usage.prompt_tokens for record in recent) > 3
    assert max(record.usage.completion_tokens for record in recent) > 3  # of the streamed one


async def test_a_key_has_less_time(make_gateway: MakeGateway, tmp_path: Path) -> None:
    """And of an answer that never begins, in any way that there is one."""
    models = {"m": fake_model(tmp_path, hang=1)}
    async with make_gateway(models) as running:
        await running.gateway.scheduler.load("m")
        assert running.gateway.ring is not None
        _, key = await running.gateway.ring.create("hasty", limits={"max_seconds": 1})
        asked = [
            running.json("POST", path, key=key, json={"model": "m", **ROUTES[path]})
            for path in ROUTES
        ]
        asked.append(running.json("GET", "/chat/ask?question=hi&model=m", key=key))
        for status, answer in await asyncio.gather(*asked):
            assert status == 504, answer
            assert "max_seconds of the key" in json.dumps(answer)
        async with running.request(
            "POST", ANTHROPIC, key=key, json={"model": "m", **ROUTES[ANTHROPIC]}
        ) as answer:
            said = await answer.json()
        assert (said["type"], said["error"]["type"]) == ("error", "timeout_error")
        assert not running.gateway.scheduler.in_flight


async def test_chat_ask_says_so_as_an_event(running: Running) -> None:
    path = "/chat/ask?question=hi&stream=true"
    async with running.request("GET", path) as events:
        said = await all_of(events)
    assert b"event: error" in said
    assert b"request_time" in said
    assert b"event: end" not in said


async def test_whoever_hangs_up_first_is_no_error() -> None:
    endings = Endings(60)
    meanings: list[object] = []

    async def serve() -> None:
        ending = endings.begin(None)
        assert ending is not None
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as broke:
            meanings.append(ending.meaning(broke))
            raise
        finally:
            endings.done(ending)

    task = spawn(serve(), name="serve")
    await asyncio.sleep(0)
    await cancel_and_wait(task)
    assert meanings == [None]


async def test_time_of_an_answer_in_one_piece_is_bounded() -> None:
    mine = r"0\.01 s \(max_seconds of the key\)"
    with pytest.raises(TimeIsUp, match=mine), Endings(None).watching(0.01):
        await asyncio.Event().wait()
    current = asyncio.current_task()
    assert current is not None
    assert not current.cancelling()
    with Endings(None).watching(None):
        await asyncio.sleep(0)
