"""Streams by a name that their client has chosen: they can be read before they begin."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.backend import State
from gateway.tasks import spawn
from tests.dialects import ROUTES
from tests.harness import MakeGateway, Running, eventually, fake_model
from tests.responses.writer import KEPT
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

NAME = "page-0123456789abcdef"
NAMED = {"X-Stream-Id": NAME}
BOTH = {**NAMED, **RESUME}
PATH = f"/v1/streams/{NAME}"


async def leave_early(running: Running, told: Told, door: str = "", **options: Any) -> None:
    """Ask, and hang up when the server has the request and nothing has come of it."""
    told.answers.clear()
    told.was_asked.clear()
    asking = spawn(_asking(running, door, **options), name="ask")
    async with asyncio.timeout(20):
        await told.was_asked.wait()
    await hang_up(asking)


async def hang_up(asking: asyncio.Task[Any]) -> None:
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()


async def _asking(running: Running, door: str, **options: Any) -> None:
    async with ask(running, door, **options):
        pass


async def refused(running: Running, path: str = CHAT, **headers: str) -> tuple[int, Any]:
    body = {"model": "m", **ROUTES[CHAT], "stream": True}
    status, said = await running.json("POST", path, json=body, headers=headers)
    return status, said["error"]


@pytest.mark.parametrize("door", DOORS)
async def test_a_stream_has_the_name_that_its_client_chose(
    make_gateway: MakeGateway, told: Told, door: str
) -> None:
    async with make_gateway(model(told)) as running:
        told.say("one", ends=True)
        async with ask(running, door, headers=NAMED) as response:
            assert response.headers["X-Stream-Id"] == NAME
            await response.read()
        assert words(await read(running, NAME)) == [("1", "one"), ("2", "[DONE]")]


@pytest.mark.parametrize("door", DOORS)
async def test_answer_goes_on_whose_client_leaves_before_it_begins(
    make_gateway: MakeGateway, told: Told, door: str
) -> None:
    async with make_gateway(model(told)) as running:
        await leave_early(running, told, door, headers=BOTH)
        async with running.request("GET", PATH) as response:
            assert response.status == 200
            told.answers.set()
            told.say("one")
            assert words(await one_event(response)) == [("1", "one")]
            told.say("two", ends=True)
            assert words(await response.read()) == [("2", "two"), ("3", "[DONE]")]
        assert not told.left.is_set()
        _, requests = await running.json("GET", "/admin/requests?model=m")
        assert [one["status"] for one in requests["ended"]] == [200]


async def test_both_read_it_where_a_second_tab_came_early(
    make_gateway: MakeGateway, told: Told
) -> None:
    async with make_gateway(model(told)) as running:
        told.answers.clear()
        first = spawn(_whole(running), name="ask")
        async with asyncio.timeout(20):
            await told.was_asked.wait()
        async with running.request("GET", PATH) as second:
            told.answers.set()
            told.say("one", ends=True)
            assert words(await second.read()) == [("1", "one"), ("2", "[DONE]")]
        assert words(await first) == [("", "one"), ("", "[DONE]")]


async def _whole(running: Running) -> bytes:
    async with ask(running, headers=BOTH) as response:
        whole: bytes = await response.read()
        return whole


@pytest.mark.parametrize("headers", [NAMED, RESUME])
async def test_answer_ends_whose_client_leaves_early_and_does_not_say_both(
    make_gateway: MakeGateway, told: Told, headers: dict[str, str]
) -> None:
    async with make_gateway(model(told)) as running:
        await leave_early(running, told, headers=headers)
        scheduler = running.gateway.scheduler
        await eventually(lambda: scheduler.in_flight == 0, "nobody works on it")
        if headers is NAMED:
            assert words(await read(running, NAME)) == [("1", "cancelled")]


async def test_answer_ends_when_nobody_comes_back_to_it(
    make_gateway: MakeGateway, told: Told
) -> None:
    async with make_gateway(model(told), streams={"keep": "0.2s"}) as running:
        await leave_early(running, told, headers=BOTH)
        scheduler = running.gateway.scheduler
        assert scheduler.in_flight == 1
        await eventually(lambda: scheduler.in_flight == 0, "nobody works on it")


async def test_a_request_that_waits_goes_on_waiting(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": fake_model(tmp_path, start_delay=1)}) as running:
        asking = spawn(_asking(running, "", headers=BOTH), name="ask")
        backend = running.gateway.scheduler.backend("m")
        assert backend is not None
        await eventually(lambda: backend.state is State.STARTING, "it loads")
        await hang_up(asking)
        said = await read(running, NAME)
        assert said.endswith(b"data: [DONE]\n\n")
        assert backend.starts == 1


async def test_who_comes_back_is_told_why_there_is_no_answer(
    make_gateway: MakeGateway, told: Told
) -> None:
    async def refuse(asked: Any) -> None:
        told.was_asked.set()
        await told.answers.wait()
        body = b'{"error": {"message": "too much", "type": "invalid_request_error"}}'
        asked.writer.write(
            b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )

    told.server.answers[CHAT] = refuse
    async with make_gateway(model(told)) as running:
        await leave_early(running, told, headers=BOTH)
        async with running.request("GET", PATH) as response:
            told.answers.set()
            said = await broken_off(response)
        assert b"too much" in said
        assert said.startswith(b"id: 1\n")
        # It is another try, and no other stream, that says the same name then.
        told.server.answers[CHAT] = told.stream
        told.say("one", ends=True)
        async with ask(running, headers=BOTH) as response:
            assert words(await response.read()) == [("", "one"), ("", "[DONE]")]


async def test_a_model_that_does_not_load_is_told_later_too(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": fake_model(tmp_path, exit=1)}) as running:
        status, error = await refused(running, **BOTH)
        assert status == 500
        assert words(await read(running, NAME)) == [("1", error["code"])]


async def test_a_name_is_for_one_stream_of_a_key(make_gateway: MakeGateway, told: Told) -> None:
    async with make_gateway(model(told)) as running:
        _, made = await running.json("POST", "/admin/keys", json={"name": "other"})
        async with ask(running, headers=BOTH) as first:
            told.say("one")
            await one_event(first)
            status, error = await refused(running, **NAMED)
            assert (status, error["code"], error["param"]) == (409, "stream_exists", "X-Stream-Id")
            status, _ = await running.json("GET", PATH, key=made["key"])
            assert status == 404
            told.say("two", ends=True)
            await first.read()
        status, error = await refused(running, **NAMED)
        assert (status, error["code"]) == (409, "stream_exists")
        told.say("its own", ends=True)
        async with ask(running, headers=BOTH, key=made["key"]) as response:
            assert response.headers["X-Stream-Id"] == NAME
            await response.read()
        assert words(await read(running, NAME))[0] == ("1", "one")
        assert words(await read(running, NAME, key=made["key"]))[0] == ("1", "its own")


@pytest.mark.parametrize("name", ["short", "x" * 65, "a/b-0123456789abc", "a b-0123456789abc", ""])
@pytest.mark.parametrize("door", DOORS)
async def test_odd_names_are_refused(
    make_gateway: MakeGateway, told: Told, name: str, door: str
) -> None:
    async with make_gateway(model(told)) as running:
        status, error = await refused(running, CHAT + door, **{"X-Stream-Id": name})
        assert (status, error["param"]) == (400, "X-Stream-Id")
        assert "16 to 64" in error["message"]
        assert told.server.asked == []


async def test_its_client_ends_it_before_it_begins(make_gateway: MakeGateway, told: Told) -> None:
    async with make_gateway(model(told)) as running:
        await leave_early(running, told, headers=BOTH)
        async with running.request("DELETE", PATH) as response:
            assert response.status == 204
        scheduler = running.gateway.scheduler
        await eventually(lambda: scheduler.in_flight == 0, "nobody works on it")
        assert (await running.json("GET", PATH))[0] == 404


async def test_what_goes_on_alone_has_its_place_among_those_of_its_key(
    make_gateway: MakeGateway, told: Told
) -> None:
    async with make_gateway(model(told)) as running:
        limits = {"name": "one at once", "limits": {"concurrency": 1}}
        _, made = await running.json("POST", "/admin/keys", json=limits)
        key = made["key"]
        scheduler = running.gateway.scheduler
        async with ask(running, headers=BOTH, key=key) as first:
            told.say("one")
            await one_event(first)
            first.close()
        await at_its_limit(running, key)
        await leave_early(running, told, headers=BOTH, key=key)
        await at_its_limit(running, key)
        asking = spawn(_asking(running, "", key=key), name="ask")
        await eventually(lambda: scheduler.in_flight == 1, "there is a place again")
        await hang_up(asking)


async def at_its_limit(running: Running, key: str) -> None:
    """It is, until what goes on for nobody is ended."""
    body = {"model": "m", **ROUTES[CHAT], "stream": True}
    status, said = await running.json("POST", CHAT, json=body, key=key)
    assert status == 429, said
    async with running.request("DELETE", PATH, key=key) as response:
        assert response.status == 204
    scheduler = running.gateway.scheduler
    await eventually(lambda: scheduler.in_flight == 0, "it has ended")


async def test_a_gateway_that_ends_waits_for_it(make_gateway: MakeGateway, told: Told) -> None:
    async with make_gateway(model(told), shutdown_timeout="0.2s") as running:
        await leave_early(running, told, headers=BOTH)
        assert running.gateway.scheduler.in_flight == 1
    assert running.gateway.scheduler.in_flight == 0


@pytest.mark.parametrize("settings", [{}, {"responses": KEPT}])
@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/responses", "/v1/messages"])
async def test_a_real_llama_server_answers_who_has_left_while_it_loads(
    make_gateway: MakeGateway, parrot_model: Path, path: str, settings: dict[str, Any]
) -> None:
    params = {"model": str(parrot_model), "threads": 1, "ctxSize": 512}
    models = {"m": {"params": params}}
    async with make_gateway(models, llama_server="auto", **settings) as running:
        many = {"max_output_tokens" if path == "/v1/responses" else "max_tokens": 12}
        body = {"model": "m", **ROUTES[path], **many, "stream": True}

        async def asks() -> None:
            async with running.request("POST", path, json=body, headers=BOTH):
                pass

        asking = spawn(asks(), name="ask")
        backend = running.gateway.scheduler.backend("m")
        assert backend is not None
        await eventually(lambda: backend.state is State.STARTING, "it loads")
        await hang_up(asking)
        said = await read(running, NAME)
        last = {CHAT: b"[DONE]", "/v1/completions": b"[DONE]"}
        assert last.get(
            path, b"response.completed" if "responses" in path else b"message_stop"
        ) in (said)
        assert b"error" not in said.replace(b'"error":null', b"")
