"""GET /admin/status: models, requests under way and ended ones; usage by key, model and day."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.access.accounting import Total
from gateway.access.rate_limits import DAY
from gateway.access.request_log import Record
from gateway.proxy.sse import Usage
from gateway.tasks import spawn
from tests.harness import MakeGateway, Running, fake_model, opened

_EPOCH = date(1970, 1, 1).toordinal()


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    return gate


@pytest.fixture
async def running(make_gateway: MakeGateway, tmp_path: Path, gate: Path) -> AsyncIterator[Running]:
    models = {"m": fake_model(tmp_path, gate=gate, chunks=4), "idle": fake_model(tmp_path)}
    async with make_gateway(models) as running:
        yield running


async def look(running: Running) -> dict[str, Any]:
    status, seen = await running.json("GET", "/admin/status")
    assert status == 200
    return seen


async def ended_requests(running: Running) -> dict[str, Any]:
    """What is told of requests, once none is under way and one is counted."""
    async with asyncio.timeout(20):
        while (seen := (await look(running))["requests"])["under_way"] or not seen["recent"]:
            await asyncio.sleep(0.05)
    return seen


async def test_requests_under_way_and_ended_are_listed(
    running: Running, gate: Path, subtests: pytest.Subtests
) -> None:
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "private"}]}
    async with running.request("POST", "/v1/chat/completions", json=body) as response:
        await response.content.readany()
        seen = await look(running)
        (one,) = seen["requests"]["under_way"]
        assert one["id"] == response.headers["X-Request-Id"]
        assert (one["name"], one["model"], one["route"]) == ("test", "m", "/v1/chat/completions")
        assert (one["stage"], one["completion_tokens"]) == ("writing", 1)
        assert one["seconds"] > 0
        assert seen["requests"]["recent"] == []
        with opened(gate):
            await response.read()
    (ended,) = (await ended_requests(running))["recent"]
    seen = await look(running)
    assert (ended["name"], ended["model"], ended["status"]) == ("test", "m", 200)
    assert (ended["key"], ended["route"]) == (one["key"], "/v1/chat/completions")
    used = {model["name"]: model["usage"] for model in seen["models"]}
    assert used["idle"] == Total()._asdict()
    assert used["m"]["requests"] == 1
    for counter in ("prompt_tokens", "completion_tokens", "cached_tokens"):
        with subtests.test(f"{counter!r:.80}"):
            assert used["m"][counter] == ended[counter]
    assert ended["completion_tokens"] > 0
    assert "private" not in json.dumps(seen)


async def test_one_that_is_hung_up_on_is_not_under_way(running: Running, gate: Path) -> None:
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    async with running.request("POST", "/v1/chat/completions", json=body) as response:
        await response.content.readany()
    seen = await ended_requests(running)
    assert seen["recent"][0]["status"] == 499
    with opened(gate):
        pass


async def test_a_query_is_no_part_of_a_route(running: Running) -> None:
    await running.json("GET", "/upstream/idle/nothing/such?secret=1")
    (ended,) = (await ended_requests(running))["recent"]
    assert ended["route"] == "/nothing/such"


async def test_it_can_be_followed(running: Running, subtests: pytest.Subtests) -> None:
    async with running.request("GET", "/admin/status?follow=true&every=0.2") as response:
        assert response.content_type == "text/event-stream"
        seen: list[Any] = []
        async with asyncio.timeout(20):
            while len(seen) < 3:
                line = await response.content.readline()
                if line.startswith(b"data: "):
                    seen.append(json.loads(line[6:]))
    assert seen[0].keys() == (await look(running)).keys()
    assert seen[0]["uptime"] < seen[1]["uptime"] < seen[2]["uptime"]
    for every in ("0", "nan", "soon", "61"):
        with subtests.test(f"{every!r:.80}"):
            status, answer = await running.json("GET", f"/admin/status?follow=true&every={every}")
            assert (status, answer["error"]["param"]) == (400, "every")


async def test_status_tells_how_much_of_a_model_is_loaded(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """By what its process has read: the same for every key, in GET /status."""
    model = fake_model(tmp_path, reads=0.05, start_delay=4)
    with Path(model["params"]["model"]).open("wb") as file:
        file.truncate(400 * 2**20)
    async with (
        make_gateway({"m": model}, scheduler={"memory_budget": "4GiB"}) as running,
        running.request("GET", "/status") as response,
    ):
        load = spawn(running.json("POST", "/loadModel", json={"model": "m"}), name="load")
        percent, loading = [], True
        async with asyncio.timeout(30):
            while loading:
                line = await response.content.readline()
                if line.startswith(b"data: "):
                    waiting = json.loads(line[6:])["waiting"]
                    percent += [one["percent"] for one in waiting]
                    loading = bool(waiting) or not percent
        assert (await load)[0] == 200
    told = [number for number in percent if number is not None]
    assert told == sorted(told)
    assert 0 < told[0] < told[-1] < 100


async def test_usage_is_grouped_by_day(running: Running, subtests: pytest.Subtests) -> None:
    now = time.time()
    today, yesterday = (date.fromordinal(_EPOCH + int(at) // DAY) for at in (now, now - DAY))
    record = partial(Record, seconds=1.0, route="/v1/chat/completions")
    add = running.gateway.accounting.add
    add(*record(now - DAY, "k_1", "a", None, 200, Usage(10, 1, 4)))
    for key, tokens in (("k_1", (20, 2, 12)), ("k_2", (15, 1, 0)), ("k_2", (15, 2, 0))):
        add(*record(now, key, "b", None, 200, Usage(*tokens)))

    async def rows(by: str) -> list[dict[str, Any]]:
        status, answer = await running.json("GET", f"/admin/usage?days=2&by={by}")
        assert status == 200
        used: list[dict[str, Any]] = answer["usage"]
        return used

    counters = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens")
    assert await rows("day") == [
        {"day": yesterday.isoformat(), **dict(zip(counters, (1, 10, 1, 4), strict=True))},
        {"day": today.isoformat(), **dict(zip(counters, (3, 50, 5, 12), strict=True))},
    ]
    assert [row["model"] for row in await rows("model")] == ["a", "b"]
    assert [(row["key"], row["day"]) for row in await rows("key,day")] == [
        ("k_1", yesterday.isoformat()),
        ("k_1", today.isoformat()),
        ("k_2", today.isoformat()),
    ]
    for by in ("week", "", "key,,day"):
        with subtests.test(f"{by!r:.80}"):
            status, answer = await running.json("GET", f"/admin/usage?by={by}")
            assert (status, answer["error"]["param"]) == (400, "by")
