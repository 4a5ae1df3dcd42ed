"""What is open under a key ends when the key is revoked, expires, or is allowed less."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.access import key_lookup
from gateway.errors import Forbidden
from gateway.proxy.ending import Endings
from gateway.tasks import spawn
from tests import scripted
from tests.dialects import ROUTES
from tests.harness import COMMAND, MakeGateway, Running, Served, fake_model

#: The model says letters for as long as its context lasts, which is longer than any test.
#: For Anthropic's messages llama-server's own limit would be 4,096 tokens: two seconds.
ENDLESS = {"grammar": "root ::= [a-z ]+", "ignore_eos": True, "max_tokens": 30_000}
STREAMS = ("/status", "/models/sse")
DIALECTS = ("/v1/chat/completions", "/v1/messages", "/v1/responses", "/completion")


def body_of(path: str) -> dict[str, Any]:
    return {"model": "m", **ROUTES[path]}


@pytest.fixture
async def running(make_gateway: MakeGateway, tiny_model: Path) -> AsyncIterator[Running]:
    """A real llama-server whose answers have no end."""
    params = {"model": str(tiny_model), "threads": 1, "ctxSize": 12 * 32768, "nPredict": 30000}
    model = {
        "params": params,
        "setParams": ENDLESS,
        "parallel": 12,
        "personalities": {"p": "Be p."},
    }
    async with make_gateway({"m": model}, llama_server="auto") as running:
        await running.gateway.scheduler.load("m")
        yield running


async def rest_of(answer: aiohttp.ClientResponse) -> str:
    """What comes until the end, which is soon."""
    said = b""
    with contextlib.suppress(aiohttp.ClientPayloadError):
        async with asyncio.timeout(10):
            async for piece in answer.content.iter_any():
                said += piece
    return said.decode()


async def key_of(running: Running, **fields: Any) -> tuple[str, str]:
    """The id and text of a new key."""
    assert running.gateway.ring is not None
    record, key = await running.gateway.ring.create("one", **fields)
    return record.id, key


async def revoke(running: Running, key_id: str) -> None:
    assert (await running.json("DELETE", f"/admin/keys/{key_id}"))[0] == 200


async def test_a_revoked_key_ends_all_that_is_open(running: Running) -> None:
    """In every dialect, at both doors (a query is aiohttp's), streamed and in one piece."""
    key_id, key = await key_of(running)
    async with contextlib.AsyncExitStack() as stack:
        opened = []
        for path, query in itertools.product(DIALECTS, ("", "?x=1")):
            body = {"model": "m", **ROUTES[path], "stream": True}
            answer = await stack.enter_async_context(
                running.request("POST", path + query, json=body, key=key)
            )
            assert answer.status == 200, path
            await answer.content.readany()
            opened.append((path, answer))
        whole = [
            spawn(running.json("POST", path + query, json=body_of(path), key=key), name="whole")
            for path, query in ((DIALECTS[0], ""), (DIALECTS[1], "?x=1"))
        ]
        for path in (*STREAMS, "/chat/ask?question=x&stream=true&model=m"):
            answer = await stack.enter_async_context(running.request("GET", path, key=key))
            assert answer.status == 200
            opened.append((path, answer))
        scheduler = running.gateway.scheduler
        await scripted.until(scheduler, lambda: scheduler.status()[0].in_flight == 11)
        # From now on: aiohttp forgets what it has not told when a stream breaks.
        readings = [spawn(rest_of(answer), name="reads") for _, answer in opened]
        await revoke(running, key_id)
        for (path, _), reading in zip(opened, readings, strict=True):
            assert "this API key has been revoked" in await reading, path
        for task in whole:
            status, body = await task
            assert status == 401
            assert "revoked" in json.dumps(body)
        await scripted.until(scheduler, lambda: scheduler.in_flight == 0)


@pytest.mark.parametrize(
    ("change", "ends"),
    [
        ({"models": ["other"]}, True),
        ({"personalities": []}, True),
        ({"name": "another"}, False),
        ({"limits": {"rpm": 1000}}, False),
    ],
)
async def test_narrowed_key_ends_what_it_may_no_more(
    make_gateway: MakeGateway, tmp_path: Path, change: dict[str, Any], ends: bool
) -> None:
    models = {
        "m": fake_model(tmp_path, personalities={"p": "Be p."}, chunks=100000, pause=0.01),
        "other": fake_model(tmp_path),
    }
    async with make_gateway(models) as running:
        key_id, key = await key_of(running)
        body = {"model": "m:p", **ROUTES["/v1/chat/completions"], "stream": True}
        async with (
            running.request("POST", "/v1/chat/completions", json=body, key=key) as chat,
            running.request("GET", "/status", key=key) as status,
        ):
            await chat.content.readany()
            await status.content.readany()
            chatting = spawn(rest_of(chat), name="reads") if ends else None
            assert (await running.json("PATCH", f"/admin/keys/{key_id}", json=change))[0] == 200
            if chatting is not None:
                assert "any more" in await chatting
                assert "connect again" in await rest_of(status)
            else:
                assert await chat.content.readany()
                assert running.gateway.scheduler.in_flight == 1


async def test_administrator_who_is_one_no_more_loses_open_streams(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        key_id, key = await key_of(running, admin=True)
        async with running.request("GET", "/admin/models/m/log", key=key) as log:
            assert log.status == 200
            changed = await running.json("PATCH", f"/admin/keys/{key_id}", json={"admin": False})
            assert changed[0] == 200
            assert "no admin key any more" in await rest_of(log)


async def test_request_in_the_queue_ends_with_its_key(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": fake_model(tmp_path, never_healthy=1)}) as running:
        key_id, key = await key_of(running)
        scheduler = running.gateway.scheduler
        body = {"model": "m", **ROUTES["/v1/chat/completions"]}
        asked = [
            spawn(running.json("POST", path, json=body, key=key), name="waits")
            for path in ("/v1/chat/completions", "/loadModel")
        ]
        await scripted.until(scheduler, lambda: scheduler.status()[0].queued == 1)
        await revoke(running, key_id)
        for task in asked:
            status, answer = await task
            assert (status, answer["error"]["code"]) == (401, "api_key_revoked")
        assert scheduler.status()[0].queued == 0


async def test_key_that_expires_ends_what_is_open(
    make_gateway: MakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In seconds: so also the look at the clock before it is time.
    monkeypatch.setattr(key_lookup, "CLOCK_EVERY", 0.05)
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        soon = datetime.now(UTC) + timedelta(seconds=1)
        _, key = await key_of(running, expires=soon)
        async with running.request("GET", "/status", key=key) as status:
            assert status.status == 200
            assert "this API key has expired" in await rest_of(status)
        assert datetime.now(UTC) >= soon


async def test_a_key_is_revoked_by_the_command_line(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    served = serve()
    url, admin = await asyncio.to_thread(lambda: (served.url, served.key))
    environ = {**os.environ, "XDG_DATA_HOME": str(tmp_path / "share")}
    async with aiohttp.ClientSession(url) as session:
        headers = {"Authorization": f"Bearer {admin}"}
        async with session.post("/admin/keys", json={"name": "x"}, headers=headers) as made:
            new = await made.json()
        headers = {"Authorization": f"Bearer {new['key']}"}
        async with session.get("/status", headers=headers) as answer:
            assert answer.status == 200
            process = await asyncio.create_subprocess_exec(
                COMMAND, "keys", "revoke", new["id"], cwd=tmp_path, env=environ
            )
            assert await process.wait() == 0
            assert "this API key has been revoked" in await rest_of(answer)


async def test_a_stream_of_events_is_a_request_of_its_key(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}, limits={"streams_per_key": 2}) as running:
        _, key = await key_of(running, limits={"concurrency": 1})
        async with running.request("GET", "/status", key=key) as status:
            assert status.status == 200
            for path in STREAMS:
                with subtests.test(f"{path!r:.80}"):
                    told, answer = await running.json("GET", path, key=key)
                    assert (told, answer["error"]["param"]) == (429, "concurrency")
            body = body_of("/v1/chat/completions")
            told, answer = await running.json("POST", "/v1/chat/completions", json=body, key=key)
            assert (told, answer["error"]["param"]) == (429, "concurrency")
        _, free = await key_of(running)
        async with (
            running.request("GET", "/status", key=free),
            running.request("GET", "/models/sse", key=free),
        ):
            told, answer = await running.json("GET", "/status", key=free)
            assert (told, answer["error"]["code"]) == (429, "too_many_streams")
            assert "limits.streams_per_key" in answer["error"]["message"]
            body = body_of("/v1/chat/completions")
            assert (await running.json("POST", "/v1/chat/completions", json=body, key=free))[
                0
            ] == 200
        async with asyncio.timeout(10):  # what has gone is noticed in a moment
            while (await running.json("POST", "/v1/chat/completions", json=body, key=key))[
                0
            ] != 200:
                await asyncio.sleep(0.01)


async def test_it_costs_a_request_little() -> None:
    """Nothing is left of those that have ended, and an end that comes too late is none."""
    endings = Endings(None)
    ending = endings.begin(None, "whose")
    assert endings.open == [ending]
    endings.done(ending)
    assert endings.open == []

    async def pieces() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    got: AsyncIterator[int] = endings.within(pieces(), None, "whose")  # type: ignore[arg-type]
    assert await anext(got) == 1
    endings.open[0].end(Forbidden("no more"))
    with pytest.raises(Forbidden, match="no more") as told:
        await anext(got)
    assert told.value.cuts
    assert endings.open == []
