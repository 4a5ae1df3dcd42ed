"""Where no heartbeat goes out: in busy streams, within events, in answers that are no streams."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.tasks import spawn
from tests.harness import MakeGateway, Running, fake_model
from tests.proxy.heartbeat.apis import (
    APIS,
    BEAT,
    BOTH_DOORS,
    EVERY_API,
    LIMITS,
    MESSAGES,
    WORKING,
    Api,
    Reading,
    Script,
    asking,
    chunk,
    gateway,
    without_beats,
)
from tests.remote_server import STREAM_HEAD


async def test_a_busy_stream_has_none(make_gateway: MakeGateway, script: Script) -> None:
    api = APIS["chat"]
    async with (
        gateway(make_gateway, script, limits={"heartbeat": "1s"}) as running,
        asking_after(running, api, lambda: script.say(STREAM_HEAD, chunk(api.first))) as reading,
    ):
        for _ in range(15):
            script.say(chunk(api.second))
            await reading.more()
            await asyncio.sleep(0.1)  # the pace of the tokens
        script.say(chunk(api.last), b"0\r\n\r\n")
        assert await reading.rest() == api.first + 15 * api.second + api.last


@contextlib.asynccontextmanager
async def asking_after(
    running: Running, api: Api, act: Callable[[], None]
) -> AsyncIterator[Reading]:
    act()
    async with asking(running, api) as reading:
        yield reading


EVENT = re.compile(rb'data: \{"object": [^\n]*"word\d "[^\n]*\n\n')


@BOTH_DOORS
async def test_none_goes_out_within_an_event(
    make_gateway: MakeGateway, tmp_path: Path, query: str
) -> None:
    """Not as long as half of it has gone out."""
    model = fake_model(tmp_path, split=30, pause=5 * BEAT, chunks=4)
    api = APIS["chat"]
    async with make_gateway({"m": model}, limits=LIMITS) as running:
        await running.gateway.scheduler.load("m")
        async with asking(running, api, query) as reading:
            got = await reading.rest()
    assert reading.clean
    assert len(EVENT.findall(got)) == 4
    pauses = re.split(rb"(?:data: [^\n]*\n\n)+", got)
    # Between two of them there are some: the pause is longer than a heartbeat.
    assert [len(re.findall(WORKING, pause)) >= 2 for pause in pauses[1:4]] == [True] * 3


@EVERY_API
async def test_heartbeat_goes_out_while_the_rest_of_a_held_back_event_is_awaited(
    make_gateway: MakeGateway, script: Script, api: Api
) -> None:
    """Where answers are read on their way, lines of them go out when they are complete."""
    at = api.second.index(b"data: ") + 9
    script.say(STREAM_HEAD, chunk(api.first), chunk(b"\n" + api.second[:at]))
    async with gateway(make_gateway, script) as running, asking(running, api) as reading:
        await reading.until(lambda got: len(re.findall(WORKING, got)) >= 5)
        script.say(chunk(api.second[at:]))
        await reading.beats(api, len(api.beat.findall(reading.got)) + 2)
        script.say(chunk(api.last), b"0\r\n\r\n")
        got = await reading.rest()
    if api.path != "/v1/responses":
        left = re.sub(WORKING, b"", without_beats(api, got))
        assert left == api.first + b"\n" + api.second + api.last


async def test_no_heartbeat_comes_between_two_lines_of_an_event(
    make_gateway: MakeGateway, script: Script
) -> None:
    api = APIS["anthropic"]
    name, data, _ = api.second.split(b"\n", 2)
    script.say(STREAM_HEAD, chunk(api.first), chunk(name + b"\n"))
    async with (
        gateway(make_gateway, script) as running,
        asking(running, api) as reading,
    ):
        await reading.until(lambda got: len(re.findall(WORKING, got)) >= 3)
        assert b"ping" not in reading.got
        script.say(chunk(data + b"\n\n"), chunk(api.last), b"0\r\n\r\n")
        assert re.sub(WORKING, b"", await reading.rest()) == api.first + api.second + api.last


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": MESSAGES}),
        ("/v1/embeddings", {"input": "x", "stream": True}),
    ],
)
async def test_who_wants_no_stream_hears_nothing_before_the_answer(
    make_gateway: MakeGateway, script: Script, path: str, body: dict[str, Any]
) -> None:
    """Nor where ``stream`` means nothing, as for embeddings."""
    script.server.answers["/v1/embeddings"] = script.play
    async with gateway(make_gateway, script) as running:
        asking = running.json("POST", path, json={"model": "m", **body})
        asked = spawn(asking, name="a client")
        await script.server.until(lambda: bool(script.server.asked))
        done, _ = await asyncio.wait([asked], timeout=5 * BEAT)
        assert not done
        script.say(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
        )
        assert await asked == (200, {})


async def test_slow_answer_that_is_no_stream_goes_through_as_it_is(
    make_gateway: MakeGateway, script: Script
) -> None:
    """It goes through as it is, whoever asked for a stream."""
    api = APIS["chat"]
    script.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{")
    async with (
        gateway(make_gateway, script) as running,
        asking(running, api) as reading,
    ):
        assert reading.response.content_type == "application/json"
        await reading.until(lambda got: got == b"{")
        await asyncio.sleep(5 * BEAT)  # no beat must come meanwhile
        script.say(b"}")
        script.die()
        assert await reading.rest() == b"{}"


async def test_heartbeats_are_no_tokens(make_gateway: MakeGateway, script: Script) -> None:
    """A client that hangs up pays for the events that came, and for none of ours."""
    api = APIS["chat"]
    async with gateway(make_gateway, script) as running:
        async with asking(running, api) as reading:
            await reading.beats(api, 3)
            script.say(STREAM_HEAD, chunk(api.first), chunk(api.second))
            await reading.beats(api, 8)
        async with asyncio.timeout(30):
            while not running.gateway.accounting.recent:  # its prompt is counted first
                await asyncio.sleep(0.01)
        (record,) = running.gateway.accounting.recent
        assert record.usage.completion_tokens == 2
