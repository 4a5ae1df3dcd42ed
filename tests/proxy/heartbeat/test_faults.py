"""Streams that end in an error, before a heartbeat and after it."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from pathlib import Path

import openai
import pytest

from tests.harness import MakeGateway, eventually, fake_model
from tests.proxy.heartbeat.apis import (
    APIS,
    BEAT,
    BOTH_DOORS,
    EVERY_API,
    FORBIDDEN,
    LIMITS,
    Api,
    Script,
    asking,
    chunk,
    gateway,
    without_beats,
)
from tests.remote_server import STREAM_HEAD


@EVERY_API
@pytest.mark.parametrize("late", [False, True])
async def test_an_error_before_a_heartbeat_is_plain_and_after_it_an_event(
    make_gateway: MakeGateway, script: Script, api: Api, late: bool
) -> None:
    refusal = (
        b"HTTP/1.1 400 Bad\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (len(FORBIDDEN), FORBIDDEN)
    )
    limits = LIMITS if late else {}
    if not late:
        script.say(refusal)
    async with gateway(make_gateway, script, limits=limits) as running:
        async with asking(running, api) as reading:
            if not late:
                assert reading.response.status == 400
                said = json.loads(await reading.rest())
            else:
                await reading.beats(api, 2)
                script.say(refusal)
                got = await reading.rest()
                event = rb"event: error\ndata: (.*)\n\n" if api.error else rb"data: (.*)\n\n"
                found = re.search(event, got)
                assert found
                said = json.loads(found[1])
            assert said["error"]["message"] == "too long a prompt"
        # Its client's mistake is no failure of the backend's, whenever it is told.
        assert await running.json("GET", "/chat/errors") == (200, {"errors": []})


@pytest.mark.parametrize("length", [b"Content-Length: 2\r\n\r\n{}", b"\r\n{}"])
async def test_answer_that_is_no_stream_after_a_heartbeat_is_an_error(
    make_gateway: MakeGateway, script: Script, length: bytes
) -> None:
    api = APIS["chat"]
    async with (
        gateway(make_gateway, script) as running,
        asking(running, api) as reading,
    ):
        await reading.beats(api, 2)
        script.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + length)
        got = await reading.rest()
    assert b"m did not answer with a stream" in got
    assert b"{}" not in got


@EVERY_API
@BOTH_DOORS
@pytest.mark.parametrize("count", [1, 9000], ids=["short", "long"])
@pytest.mark.parametrize("late", [False, True], ids=["at once", "after a heartbeat"])
async def test_events_of_a_known_length_get_heartbeats(
    make_gateway: MakeGateway, script: Script, api: Api, query: str, count: int, late: bool
) -> None:
    """A server may tell the length of its stream: with heartbeats, or numbers, it is another."""
    whole = api.first + api.second * count + api.last
    head = b"HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream\r\nContent-Length: %d\r\n\r\n"
    parts = head % len(whole) + whole[:-5], whole[-5:]
    if not late:
        script.say(parts[0])
    async with gateway(make_gateway, script) as running, asking(running, api, query) as reading:
        await reading.beats(api, 2 if late else 0)
        if late:
            script.say(parts[0])
        await reading.until(lambda got: got.count(b'"b"') == count)
        script.say(parts[1])
        got = await reading.rest()
        await eventually(lambda: bool(running.gateway.accounting.recent))
        (record,) = running.gateway.accounting.recent
    assert reading.clean
    assert record.status == 200
    assert record.usage.completion_tokens >= count or api.path == "/v1/messages"
    if api.path != "/v1/responses":
        assert without_beats(api, got) == whole
    else:
        events = [json.loads(line[6:]) for line in got.splitlines() if line.startswith(b"data: ")]
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert events[-1]["type"] == "response.completed"


async def test_events_that_are_packed_are_left_alone(
    make_gateway: MakeGateway, script: Script
) -> None:
    """Nobody asked for that, but no comment gets into it."""
    api = APIS["chat"]
    packed = gzip.compress(api.first + api.last)
    head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    # What has gone out ends as a line does.
    script.say(head, chunk(packed[:15] + b"\n"))
    async with (
        gateway(make_gateway, script) as running,
        asking(running, api, auto_decompress=False) as reading,
    ):
        await reading.until(len)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reading.response.content.readany(), 4 * BEAT)
        script.say(chunk(packed[15:]), b"0\r\n\r\n")
        assert await reading.rest() == packed[:15] + b"\n" + packed[15:]


@EVERY_API
@BOTH_DOORS
async def test_death_behind_the_last_event_is_no_failure(
    make_gateway: MakeGateway, script: Script, api: Api, query: str
) -> None:
    """All was said, so nothing follows, and it is no failure."""
    script.say(STREAM_HEAD, chunk(api.first), chunk(api.second), chunk(api.last))
    async with gateway(make_gateway, script, limits={}) as running:
        async with asking(running, api, query) as reading:
            await reading.until(lambda got: re.search(rb"DONE|_stop|completed", got))
            script.die()
            got = await reading.rest()
        assert reading.clean
        assert b"rror" not in got.replace(b'"error":null', b"")
        assert await running.json("GET", "/chat/errors") == (200, {"errors": []})
        await eventually(lambda: bool(running.gateway.accounting.recent))
        assert running.gateway.accounting.recent[-1].status == 200


@BOTH_DOORS
async def test_responses_that_failed_leave_their_connection(
    make_gateway: MakeGateway, script: Script, query: str
) -> None:
    """Their HTTP ended as it should, so the client may send its next request there."""
    api = APIS["responses"]
    async with gateway(make_gateway, script) as running:
        ports = set()
        for _ in range(5):
            async with asking(running, api, query) as reading:
                assert reading.response.connection is not None
                transport = reading.response.connection.transport
                assert transport is not None
                ports.add(transport.get_extra_info("sockname"))
                await reading.beats(api, 1)
                script.say(b"HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\n{}")
                assert b"event: response.failed" in await reading.rest()
                assert reading.clean
        assert len(ports) == 1


@EVERY_API
@pytest.mark.parametrize("cut", ["before", "within", "behind"])
async def test_client_reads_why_a_server_died(
    make_gateway: MakeGateway, script: Script, api: Api, cut: str
) -> None:
    """Its client reads why, also where an event had begun, and no line is too many."""
    at = {"before": 0, "within": -5, "behind": len(api.second)}[cut]
    begun = api.second[:at]
    script.say(STREAM_HEAD, chunk(api.first), *([chunk(begun)] if begun else []))
    async with (
        gateway(make_gateway, script, limits={"heartbeat": "20s"}) as running,
        asking(running, api) as reading,
    ):
        await reading.until(lambda got: b"created" in got or api.first in got)
        script.die()
        got = await reading.rest()
    assert reading.clean == (api.path == "/v1/responses")
    assert b"\n\n\n" not in got
    events = [
        json.loads(event[event.index(b"data: ") + 6 :].partition(b"\n")[0])
        for event in got.removesuffix(b"\n\n").split(b"\n\n")
    ]
    errors = [event for event in events if "error" in event]
    assert len(errors) == 1
    assert "in the middle of its answer" in errors[0]["error"]["message"]
    if api.error:
        assert errors[0]["type"] == "error"
        assert re.search(rb"event: error\n(data: .*\n)?\n", got)


@BOTH_DOORS
async def test_half_an_event_is_completed_as_an_error(
    make_gateway: MakeGateway, tmp_path: Path, query: str
) -> None:
    """Half of it has gone out: the rest makes it one that says why, as the client's own error."""
    model = fake_model(tmp_path, split=90, pause=0.1, die_after=2)
    async with make_gateway({"m": model}) as running:
        async with asking(running, APIS["chat"], query) as reading:
            got = await reading.rest()
        assert reading.clean is False
        *events, last = [json.loads(event[6:]) for event in got.strip().split(b"\n\n")]
        assert [event["choices"][0]["delta"]["content"] for event in events] == ["word0 ", "word1 "]
        assert last["choices"][0]["index"] == 0  # of the half
        assert last["error"]["code"] == "backend_died"
        async with running.openai() as client:
            stream = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "hi"}], stream=True
            )
            with pytest.raises(openai.APIError) as caught:
                assert [chunk async for chunk in stream]
            assert caught.value.message == last["error"]["message"]
