"""Streams that are read again: behind the last event seen, by their own key, for a while."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.dialects import ROUTES
from tests.harness import MakeGateway, Running, eventually
from tests.remote_server import STREAM_END, STREAM_HEAD, Asked, RemoteServer, event
from tests.scripted import until

CHAT = "/v1/chat/completions"
#: The fast way in for small JSON, and aiohttp's server, where a query is for.
DOORS = ("", "?x=1")
RESUME = {"X-Stream-Resume": "true"}


class Told:
    """A server elsewhere whose streams go on when the test says so."""

    def __init__(self) -> None:
        self.server = RemoteServer()
        self.server.answers[CHAT] = self.stream
        self._words: asyncio.Queue[str | None] = asyncio.Queue()
        #: Set when the gateway has closed a stream that had not ended.
        self.left = asyncio.Event()

    def say(self, *words: str, ends: bool = False) -> None:
        for word in words:
            self._words.put_nowait(word)
        if ends:
            self._words.put_nowait(None)

    async def stream(self, asked: Asked) -> None:
        asked.writer.write(STREAM_HEAD)
        try:
            while (word := await self._next(asked)) is not None:
                asked.writer.write(event(word))
                await asked.writer.drain()
            asked.writer.write(STREAM_END)
        except ConnectionError:
            self.left.set()
            raise

    async def _next(self, asked: Asked) -> str | None:
        """The next word. Until it comes comments are sent, by which it is seen who has left."""
        while True:
            try:
                async with asyncio.timeout(0.02):
                    return await self._words.get()
            except TimeoutError:
                asked.writer.write(b"5\r\n: .\n\n\r\n")
                await asked.writer.drain()


@pytest.fixture
async def told() -> AsyncIterator[Told]:
    told = Told()
    async with told.server:
        yield told


def model(told: Told) -> dict[str, Any]:
    return {"m": {"url": told.server.url, "parallel": 4}}


def ask(running: Running, door: str = "", **options: Any) -> Any:
    body = {"model": "m", **ROUTES[CHAT], "stream": True}
    return running.request("POST", CHAT + door, json=body, **options)


async def one_event(response: aiohttp.ClientResponse) -> bytes:
    """The next event; without comments."""
    found = b""
    while not found.endswith(b"\n\n"):
        line = await response.content.readline()
        assert line, found
        if not line.startswith(b":") and (found or line != b"\n"):
            found += line
    return found


async def broken_off(response: aiohttp.ClientResponse) -> bytes:
    """What comes of a stream until it breaks off."""
    found = b""
    with contextlib.suppress(aiohttp.ClientPayloadError):
        async for piece in response.content.iter_any():
            found += piece
    return found


def words(events: bytes) -> list[tuple[str, str]]:
    """The numbers of events, and what they say."""
    found = []
    for one in events.decode().split("\n\n")[:-1]:
        if one.startswith(": .") and "data" not in one:
            continue
        fields = dict(
            line.split(": ", 1) for line in one.split("\n") if line and not line.startswith(":")
        )
        data = fields["data"]
        said = data
        if data != "[DONE]":
            parsed = json.loads(data)
            said = (
                parsed["error"]["code"]
                if "error" in parsed
                else parsed["choices"][0]["delta"]["content"]
            )
        found.append((fields.get("id", ""), said))
    return found


async def read(running: Running, id: str, after: int | None = None, **options: Any) -> bytes:
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    async with running.request("GET", f"/v1/streams/{id}", headers=headers, **options) as response:
        said = await broken_off(response)
        assert response.status == 200, said
        assert response.content_type == "text/event-stream"
        return said


async def status_of(running: Running, id: str) -> int:
    async with running.request("GET", f"/v1/streams/{id}") as response:
        status: int = response.status
        return status


@pytest.mark.parametrize("door", DOORS)
async def test_stream_that_has_ended_is_read_behind_the_last_event_seen(
    make_gateway: MakeGateway, told: Told, door: str
) -> None:
    async with make_gateway(model(told)) as running:
        told.say("one", "two", "three", ends=True)
        async with ask(running, door) as response:
            id = response.headers["X-Stream-Id"]
            await response.read()
        whole = words(await read(running, id))
        assert whole == [("1", "one"), ("2", "two"), ("3", "three"), ("4", "[DONE]")]
        assert words(await read(running, id, after=2)) == whole[2:]
        assert await read(running, id, after=4) == b""
        async with running.request("GET", f"/v1/streams/{id}?after=3") as response:
            assert words(await response.read()) == whole[3:]


@pytest.mark.parametrize("door", DOORS)
async def test_reader_gets_what_comes_as_it_comes(
    make_gateway: MakeGateway, told: Told, door: str
) -> None:
    async with make_gateway(model(told)) as running, ask(running, door) as first:
        told.say("one")
        await one_event(first)
        path = f"/v1/streams/{first.headers['X-Stream-Id']}"
        async with running.request("GET", path) as second:
            assert words(await one_event(second)) == [("1", "one")]
            told.say("two", ends=True)
            assert words(await second.read()) == [("2", "two"), ("3", "[DONE]")]
        assert words(await first.read()) == [("", "two"), ("", "[DONE]")]


@pytest.mark.parametrize("door", DOORS)
async def test_answer_that_may_be_resumed_goes_on_when_its_connection_is_lost(
    make_gateway: MakeGateway, told: Told, door: str
) -> None:
    async with make_gateway(model(told)) as running:
        async with ask(running, door, headers=RESUME) as first:
            told.say("one")
            assert words(await one_event(first)) == [("", "one")]
            id = first.headers["X-Stream-Id"]
            first.close()
        told.say("two")
        async with running.request("GET", f"/v1/streams/{id}?after=1") as second:
            assert words(await one_event(second)) == [("2", "two")]
            second.close()  # and lost again
        told.say("three", ends=True)
        assert words(await read(running, id, after=2)) == [("3", "three"), ("4", "[DONE]")]
        assert not told.left.is_set()
        _, requests = await running.json("GET", "/admin/requests?model=m")
        assert [one["status"] for one in requests["ended"]] == [200]


@pytest.mark.parametrize("door", DOORS)
async def test_answer_whose_client_reads_to_its_end_is_the_same_where_it_may_be_resumed(
    make_gateway: MakeGateway, told: Told, door: str
) -> None:
    async with make_gateway(model(told)) as running:
        for headers in ({}, RESUME):
            told.say("one", "two", ends=True)
            async with ask(running, door, headers=headers) as response:
                said = [("", "one"), ("", "two"), ("", "[DONE]")]
                assert words(await response.read()) == said
        status, _ = await running.json("GET", "/v1/models")  # the connection goes on
        assert status == 200


async def test_answer_ends_when_its_client_leaves_that_did_not_ask_to_come_back(
    make_gateway: MakeGateway, told: Told
) -> None:
    async with make_gateway(model(told)) as running:
        async with ask(running) as first:
            told.say("one")
            await one_event(first)
            id = first.headers["X-Stream-Id"]
            first.close()
        async with asyncio.timeout(20):
            await told.left.wait()
        assert words(await read(running, id)) == [("1", "one"), ("", "cancelled")]


async def test_answer_ends_when_nobody_comes_back_to_it(
    make_gateway: MakeGateway, told: Told
) -> None:
    async with make_gateway(model(told), streams={"keep": "0.2s"}) as running:
        async with ask(running, headers=RESUME) as first:
            told.say("one")
            await one_event(first)
            first.close()
        async with asyncio.timeout(20):
            await told.left.wait()
        scheduler = running.gateway.scheduler
        await until(scheduler, lambda: scheduler.in_flight == 0)
        _, requests = await running.json("GET", "/admin/requests?model=m")
        assert [one["status"] for one in requests["ended"]] == [499]


async def test_client_ends_its_answer(make_gateway: MakeGateway, told: Told) -> None:
    async with make_gateway(model(told)) as running:
        for headers in ({}, RESUME):
            told.left.clear()
            async with ask(running, headers=headers) as first:
                told.say("one")
                await one_event(first)
                path = f"/v1/streams/{first.headers['X-Stream-Id']}"
                async with running.request("DELETE", path) as response:
                    assert response.status == 204
                assert words(await broken_off(first)) == [("", "cancelled")]
            async with asyncio.timeout(20):
                await told.left.wait()
            status, said = await running.json("GET", path)
            assert (status, said["error"]["code"]) == (404, "stream_not_found")


async def test_nobody_else_reads_or_ends_a_stream(make_gateway: MakeGateway, told: Told) -> None:
    async with make_gateway(model(told)) as running:
        _, made = await running.json("POST", "/admin/keys", json={"name": "other", "admin": True})
        told.say("one", ends=True)
        async with ask(running) as response:
            path = f"/v1/streams/{response.headers['X-Stream-Id']}"
            await response.read()
        for method in ("GET", "DELETE"):
            status, said = await running.json(method, path, key=made["key"])
            assert (status, said["error"]["code"]) == (404, "stream_not_found")
        assert (await running.json("GET", path, key=None))[0] == 401
        async with running.request("GET", path) as response:
            assert words(await response.read()) == [("1", "one"), ("2", "[DONE]")]


async def test_odd_numbers_are_refused(make_gateway: MakeGateway, told: Told) -> None:
    async with make_gateway(model(told)) as running:
        told.say("one", ends=True)
        async with ask(running) as response:
            path = f"/v1/streams/{response.headers['X-Stream-Id']}"
            await response.read()
        for number, says in (("3", "the stream has 2"), ("-1", "0, 1, 2"), ("x", "0, 1, 2")):
            status, said = await running.json("GET", path, headers={"Last-Event-ID": number})
            assert (status, said["error"]["param"]) == (400, "Last-Event-ID")
            assert says in said["error"]["message"]
        status, said = await running.json(
            "POST",
            CHAT,
            json={"model": "m", **ROUTES[CHAT], "stream": True},
            headers={"X-Stream-Resume": "perhaps"},
        )
        assert (status, said["error"]["param"]) == (400, "X-Stream-Resume")


async def test_stream_is_forgotten_after_a_while(make_gateway: MakeGateway, told: Told) -> None:
    async with make_gateway(model(told), streams={"keep": "0.1s"}) as running:
        told.say("one", ends=True)
        async with ask(running) as response:
            id = response.headers["X-Stream-Id"]
            await response.read()
        async with asyncio.timeout(20):
            while await status_of(running, id) == 200:
                await asyncio.sleep(0.02)
        status, said = await running.json("GET", f"/v1/streams/{id}")
        assert (status, said["error"]["code"]) == (404, "stream_not_found")


async def test_none_is_kept_where_that_is_off(make_gateway: MakeGateway, told: Told) -> None:
    async with make_gateway(model(told), streams={"keep": None}) as running:
        told.say("one", ends=True)
        async with ask(running, headers=RESUME) as response:
            assert "X-Stream-Id" not in response.headers
            await response.read()
        status, said = await running.json("GET", "/v1/streams/stream_1")
        assert (status, said["error"]["code"]) == (404, "stream_not_found")


async def test_gateway_that_ends_ends_what_goes_on_without_a_client(
    make_gateway: MakeGateway, told: Told
) -> None:
    async with make_gateway(model(told), shutdown_timeout="0.2s") as running:
        async with ask(running, headers=RESUME) as first:
            told.say("one")
            await one_event(first)
            first.close()
        scheduler = running.gateway.scheduler
        await eventually(lambda: scheduler.in_flight == 1)
    async with asyncio.timeout(20):
        await told.left.wait()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
async def test_stream_of_a_real_llama_server_is_read_again_in_every_dialect(
    make_gateway: MakeGateway, parrot_model: Path, path: str
) -> None:
    params = {"model": str(parrot_model), "threads": 1, "ctxSize": 512}
    async with make_gateway({"m": {"params": params}}, llama_server="auto") as running:
        many = {"max_output_tokens" if path == "/v1/responses" else "max_tokens": 12}
        body = {"model": "m", **ROUTES[path], **many, "stream": True}
        seen = []
        for headers in ({}, RESUME):
            async with running.request("POST", path, json=body, headers=headers) as response:
                id, said = response.headers["X-Stream-Id"], await response.read()
            again = await read(running, id)
            assert [line for line in again.splitlines() if not line.startswith(b"id: ")] == [
                line for line in said.splitlines() if not line.startswith(b":")
            ]
            half = again[again.index(b"id: 6\n") :]
            assert await read(running, id, after=5) == half
            seen.append(again.count(b"\nid: "))
        assert seen[0] == seen[1]
