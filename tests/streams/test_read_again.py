"""Streams that are read again: behind the last event seen, by their own key, for a while."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.dialects import ROUTES
from tests.harness import MakeGateway, Running, eventually
from tests.scripted import until
from tests.streams.told import (
    CHAT,
    DOORS,
    RESUME,
    Told,
    ask,
    broken_off,
    model,
    one_event,
    read,
    words,
)


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
