"""Streams of Ollama's API, which are lines of JSON, read again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.harness import MakeGateway, Running, eventually
from tests.streams.told import DOORS, RESUME, Told, broken_off, model

CHAT = "/api/chat"


def ask(running: Running, door: str, **options: Any) -> Any:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    return running.request("POST", CHAT + door, json=body, **options)


async def read(running: Running, id: str, after: int = 0) -> bytes:
    async with running.request("GET", f"/v1/streams/{id}?after={after}") as response:
        assert response.content_type == "application/x-ndjson"
        return await broken_off(response)


def said(lines: bytes) -> list[str]:
    """What each line says; ``.`` is the last one, ``!`` an error."""
    assert lines.endswith(b"\n") or not lines
    found = []
    for line in map(json.loads, lines.splitlines()):
        if "error" in line:
            found.append(f"!{line['error']}")
        else:
            found.append("." if line["done"] else line["message"]["content"])
    return found


@pytest.mark.parametrize("door", DOORS)
async def test_lines_are_read_behind_the_last_one_seen(
    make_gateway: MakeGateway, told: Told, door: str
) -> None:
    async with make_gateway(model(told)) as running:
        told.say("one", "two", "three", ends=True)
        async with ask(running, door) as response:
            id = response.headers["X-Stream-Id"]
            assert said(await response.read()) == ["one", "two", "three", "."]
        assert said(await read(running, id)) == ["one", "two", "three", "."]
        assert said(await read(running, id, after=2)) == ["three", "."]
        assert await read(running, id, after=4) == b""
        async with running.request("GET", f"/v1/streams/{id}?after=5") as response:
            assert response.status == 400


@pytest.mark.parametrize("door", DOORS)
async def test_lines_go_on_when_their_connection_is_lost(
    make_gateway: MakeGateway, told: Told, door: str
) -> None:
    async with make_gateway(model(told)) as running:
        async with ask(running, door, headers=RESUME) as first:
            told.say("one")
            assert said(await first.content.readline()) == ["one"]
            id = first.headers["X-Stream-Id"]
            first.close()
        told.say("two")
        async with running.request("GET", f"/v1/streams/{id}?after=1") as second:
            assert said(await second.content.readline()) == ["two"]
            told.say("three", ends=True)
            assert said(await second.read()) == ["three", "."]


async def test_without_that_they_end_with_their_connection(
    make_gateway: MakeGateway, told: Told
) -> None:
    async with make_gateway(model(told)) as running:
        async with ask(running, "") as response:
            told.say("one")
            assert said(await response.content.readline()) == ["one"]
            id = response.headers["X-Stream-Id"]
            response.close()
        await told.left.wait()
        await eventually(lambda: running.gateway.scheduler.in_flight == 0)
        one, error = said(await read(running, id))
        assert (one, error[:22]) == ("one", "!the answer ends here:")


async def test_lines_that_were_refused_say_why_under_the_name_that_was_chosen(
    make_gateway: MakeGateway, told: Told
) -> None:
    name = "chosen-by-the-client-1"
    async with make_gateway({"m": {"url": "http://127.0.0.1:1"}}) as running:
        async with ask(running, "", headers={"X-Stream-Id": name}) as response:
            assert response.status in (502, 503)
        (error,) = said(await read(running, name))
        assert error.startswith("!")


async def test_what_is_no_stream_has_no_name(make_gateway: MakeGateway, told: Told) -> None:
    async with make_gateway(model(told)) as running:
        told.say("one", ends=True)
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": False}
        async with running.request("POST", CHAT, json=body) as response:
            assert response.status == 200
            assert "X-Stream-Id" not in response.headers
