"""DELETE /admin/requests/ID for requests to models of other servers: at each point of their way."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway.tasks import spawn
from tests.dialects import ROUTES
from tests.harness import MakeGateway, Running
from tests.remote_server import STREAM_HEAD, Asked, RemoteServer, event, hold
from tests.scripted import until

CHAT = "/v1/chat/completions"
DIALECTS = (CHAT, "/v1/messages", "/v1/responses", "/completion")
#: The fast way in for small JSON, and aiohttp's server, where a query is for.
DOORS = ("", "?x=1")
#: Each dialect at each door, as a stream and not.
EVERY = [(path, door, stream) for path in DIALECTS for door in DOORS for stream in (False, True)]
WORDS = "cancelled by an administrator"


@pytest.fixture
async def server() -> AsyncIterator[RemoteServer]:
    async with RemoteServer() as server:
        yield server


async def endless(asked: Asked) -> None:
    """A stream without an end; what isn't streamed doesn't even begin."""
    if asked.json.get("stream"):
        asked.writer.write(STREAM_HEAD)
        while True:  # until nobody listens
            asked.writer.write(event("one"))
            await asked.writer.drain()
            await asyncio.sleep(0.01)


async def asks(running: Running, path: str, door: str, stream: bool) -> tuple[int, str]:
    """The status of one request, and everything that came."""
    body = {"model": "m", **ROUTES[path], "stream": stream}
    said = b""
    async with running.request("POST", path + door, json=body) as response:
        with contextlib.suppress(Exception):  # a stream that is cut off
            async for piece in response.content.iter_any():
                said += piece
        return response.status, said.decode()


async def under_way(
    running: Running, many: int, done: Callable[[list[str]], bool]
) -> list[dict[str, Any]]:
    """Those ``many`` that are under way as soon as their stages are as they should be."""
    async with asyncio.timeout(30):
        while True:
            _, seen = await running.json("GET", "/admin/requests")
            found: list[dict[str, Any]] = seen["under_way"]
            if len(found) == many and done([one["stage"] for one in found]):
                return found
            await asyncio.sleep(0.02)


async def cancel(running: Running, *requests: dict[str, Any]) -> None:
    for one in requests:
        async with running.request("DELETE", f"/admin/requests/{one['id']}") as response:
            assert response.status == 204, await response.text()


async def until_ended(running: Running, many: int) -> None:
    """Until they are told of as cancelled, and nothing of them is left."""
    async with asyncio.timeout(30):
        while len((seen := (await running.json("GET", "/admin/requests"))[1])["ended"]) < many:
            await asyncio.sleep(0.02)
    ended = {(one["status"], one["code"]) for one in seen["ended"]}
    assert (ended, len(seen["ended"])) == ({(409, "cancelled")}, many)
    assert seen["under_way"] == []
    scheduler = running.gateway.scheduler
    await until(scheduler, lambda: scheduler.in_flight == 0)
    # It is no failure of the server's.
    assert (await running.json("GET", "/chat/errors"))[1]["errors"] == []


def check_refusal(path: str, said: dict[str, Any]) -> None:
    """An error in the shape of its API."""
    if path == "/v1/messages":
        assert said["type"] == "error"
        assert said["error"].keys() == {"type", "message"}
    else:
        assert said.keys() == {"error"}
        assert said["error"]["code"] == "cancelled"
    assert WORDS in said["error"]["message"]


def check_last_event(path: str, said: str) -> None:
    """The same as the end of a stream that has begun."""
    last = said.rstrip("\n").rpartition("\n\n")[2].splitlines()
    fields = dict(line.split(": ", 1) for line in last)
    data = json.loads(fields["data"])
    if path == "/v1/responses":
        assert fields["event"] == data["type"] == "response.failed"
        assert data["response"]["error"]["code"] == "cancelled", data
        assert WORDS in data["response"]["error"]["message"]
        return
    if path == "/v1/messages":
        assert fields["event"] == "error"
    check_refusal(path, data)
    assert "[DONE]" not in said


async def test_a_request_is_cancelled_elsewhere_while_it_answers(
    make_gateway: MakeGateway, server: RemoteServer
) -> None:
    server.answers |= dict.fromkeys(DIALECTS, endless)
    async with make_gateway({"m": {"url": server.url, "parallel": 32}}) as running:
        asked = [spawn(asks(running, *one), name="asks") for one in EVERY]
        seen = await under_way(
            running,
            len(EVERY),
            lambda stages: sorted(set(stages)) == ["answering", "generating"],
        )
        await server.until(lambda: len(server.asked) == len(EVERY))
        await cancel(running, *seen)
        for (path, _, stream), (status, said) in zip(
            EVERY, await asyncio.gather(*asked), strict=True
        ):
            if stream:
                assert status == 200
                check_last_event(path, said)
            else:
                assert status == 409
                check_refusal(path, json.loads(said))
        async with asyncio.timeout(30):  # its server may stop too
            while not all(one.writer.is_closing() for one in server.asked):
                await asyncio.sleep(0.02)
        await until_ended(running, len(EVERY))


@pytest.mark.parametrize("stage", ["queued", "loading"])
async def test_a_request_that_is_cancelled_before_it_is_sent_never_is(
    make_gateway: MakeGateway, server: RemoteServer, stage: str
) -> None:
    server.answers[CHAT] = endless
    if stage == "loading":  # its server has not said yet that it is there
        server.answers |= {"/v1/models": hold, "/health": hold}
    async with make_gateway({"m": {"url": server.url, "parallel": 1}}) as running:
        ahead: list[dict[str, Any]] = []
        held = None
        if stage == "queued":
            held = spawn(asks(running, CHAT, "", True), name="is ahead")
            ahead = await under_way(running, 1, lambda stages: stages == ["generating"])
        asked = [spawn(asks(running, *one), name="asks") for one in EVERY]
        seen = await under_way(
            running,
            len(EVERY) + len(ahead),
            lambda stages: stages[len(ahead) :] == [stage] * len(EVERY),
        )
        await cancel(running, *seen[len(ahead) :])
        for (path, _, _), (status, said) in zip(EVERY, await asyncio.gather(*asked), strict=True):
            assert status == 409, (path, said)
            check_refusal(path, json.loads(said))
        assert len(server.asked) == len(ahead)  # none of them was ever sent
        if held is not None:
            assert not held.done()
            await cancel(running, *ahead)
            check_last_event(CHAT, (await held)[1])
        await until_ended(running, len(EVERY) + len(ahead))
