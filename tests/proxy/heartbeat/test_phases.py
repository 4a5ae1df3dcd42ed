"""Something goes out in time in every phase of a stream, in each API's own way."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.tasks import spawn
from tests.harness import MakeGateway, Running, fake_model
from tests.proxy.heartbeat.apis import (
    APIS,
    BEAT,
    BOTH_DOORS,
    EVERY_API,
    FORBIDDEN,
    LIMITS,
    Api,
    Reading,
    Script,
    asking,
    chunk,
    gateway,
    without_beats,
)
from tests.remote_server import STREAM_HEAD
from tests.scripted import until
from tests.wire import with_tls


@EVERY_API
@BOTH_DOORS
async def test_heartbeats_come_from_acceptance_to_the_last_byte(
    make_gateway: MakeGateway, script: Script, api: Api, query: str
) -> None:
    """While a prompt is read, before the server's head and behind it, and between tokens."""
    async with gateway(make_gateway, script) as running:
        async with asking(running, api, query) as reading:
            response = reading.response
            assert response.status == 200
            assert response.headers["Content-Type"].startswith("text/event-stream")
            assert response.headers["X-Gateway-Model"] == "m"
            assert response.headers["X-Request-Id"].startswith("req_")
            assert response.headers["X-Accel-Buffering"] == "no"
            await reading.beats(api, 3)
            script.say(STREAM_HEAD)
            await reading.beats(api, len(api.beat.findall(reading.got)) + 3)
            before = len(reading.got)
            script.say(chunk(api.first))
            await reading.until(lambda got: len(api.beat.findall(got[before:])) >= 3)
            script.say(chunk(api.second), chunk(api.last), b"0\r\n\r\n")
            got = await reading.rest()
        if api.path != "/v1/responses":
            assert without_beats(api, got) == api.first + api.second + api.last
        assert got.endswith(b"\n\n")
        assert b"\n\n\n" not in got
        # No comment stands alone: a blank line behind one would be an event without data.
        assert not re.search(rb"(^|\n)(:[^\n]*\n)+\n", got)
        await until(running.gateway.scheduler, lambda: not running.gateway.scheduler.in_flight)


async def test_responses_are_one_response(make_gateway: MakeGateway, script: Script) -> None:
    api = APIS["responses"]
    async with (
        gateway(make_gateway, script) as running,
        asking(running, api) as reading,
    ):
        await reading.beats(api, 2)
        script.say(STREAM_HEAD, chunk(api.first))
        await reading.beats(api, 4)
        script.say(chunk(api.second), chunk(api.last), b"0\r\n\r\n")
        got = await reading.rest()
    events = [json.loads(line[6:]) for line in got.splitlines() if line.startswith(b"data: ")]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[0] == "created"
    assert kinds.count("created") == kinds.count("completed") == 1
    assert set(kinds[1:-2]) == {"in_progress"}
    ids = {event["response"]["id"] for event in events if "response" in event}
    assert len(ids) == 1
    assert "theirs" not in ids


@EVERY_API
async def test_place_in_the_queue_and_a_failed_load_are_told_in_every_api(
    make_gateway: MakeGateway, tmp_path: Path, api: Api
) -> None:
    """The place in the queue is told in every API, and what goes wrong then is its own error."""
    model = fake_model(tmp_path, never_healthy=1)
    async with (
        make_gateway({"m": model}, limits={**LIMITS, "load_timeout": "1s"}) as running,
        asking(running, api) as reading,
    ):
        assert reading.response.status == 200
        await reading.until(lambda got: got.count(b": starting, position 1, ") >= 3)
        got = await reading.rest()
    # Only Responses have a way to say that they have failed, which clients read if HTTP is intact.
    assert reading.clean == (api.path == "/v1/responses")
    if api.path == "/v1/responses":
        assert got.count(b"event: response.created\n") == 1
        assert got.count(b"event: response.queued\n") >= 3
    if api.path == "/v1/messages":
        assert got.count(b"event: ping\n") >= 3
    assert b"\n\n\n" not in got
    events = dict(
        re.findall(rb"(?:event: (error|response\.failed)\n)?data: (\{[^\n]*rror.*)\n", got)
    )
    said = json.loads(events[api.error.encode()])
    assert "made no progress for 1 s" in said["error"]["message"]
    if api.path == "/v1/responses":
        failed = json.loads(events[b"response.failed"])["response"]
        assert failed["status"] == "failed"
        assert failed["error"]["code"] == "model_load_failed"


@BOTH_DOORS
async def test_heartbeats_come_over_tls(
    make_gateway: MakeGateway, script: Script, tmp_path: Path, query: str
) -> None:
    api = APIS["anthropic"]
    tls, context = with_tls(tmp_path)
    async with (
        gateway(make_gateway, script, tls=tls) as running,
        asking(running, api, query, ssl=context) as reading,
    ):
        await reading.beats(api, 3)
        script.say(STREAM_HEAD, chunk(api.first))
        await reading.beats(api, 6)
        script.say(chunk(api.second), chunk(api.last), b"0\r\n\r\n")
        assert without_beats(api, await reading.rest()) == api.first + api.second + api.last


async def a_form(running: Running) -> Any:
    form = aiohttp.FormData()
    form.add_field("file", b"x" * 1000, filename="a.wav")
    form.add_field("model", "m")
    form.add_field("stream", "true")
    return running.request("POST", "/v1/audio/transcriptions", data=form)


async def passed_on(running: Running) -> Any:
    body = {"stream": True}
    return running.request("POST", "/upstream/m/v1/audio/transcriptions", json=body)


@pytest.mark.parametrize("ask", [a_form, passed_on])
@pytest.mark.parametrize("last", [True, False])
async def test_stream_known_by_its_head_alone_is_kept_alive(
    make_gateway: MakeGateway, script: Script, ask: Any, last: bool
) -> None:
    """Behind a file, or unread: it is kept alive from its head on, also before a word of it."""
    api = APIS["chat"]
    script.server.answers["/v1/audio/transcriptions"] = script.play
    script.say(STREAM_HEAD)
    async with gateway(make_gateway, script) as running, await ask(running) as response:
        assert response.status == 200
        reading = Reading(response)
        await reading.beats(api, 3)
        script.say(chunk(api.first))
        await reading.beats(api, 6)
        if last:
            script.say(chunk(api.last), b"0\r\n\r\n")
            assert without_beats(api, await reading.rest()) == api.first + api.last
        else:
            script.die()
            assert b"in the middle of its answer" in await reading.rest()


@pytest.mark.parametrize("ask", [a_form, passed_on])
async def test_answer_whose_head_tells_of_no_stream_goes_through_as_it_is(
    make_gateway: MakeGateway, script: Script, ask: Any
) -> None:
    script.server.answers["/v1/audio/transcriptions"] = script.play
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    said = {200: b'{"text": "x"}', 400: FORBIDDEN}
    for status, body in said.items():
        async with gateway(make_gateway, script, folder=str(status)) as running:
            script.say(head % (b"%d X" % status, len(body)))
            asked = spawn(answered(await ask(running)), name="a client")
            done, _ = await asyncio.wait([asked], timeout=5 * BEAT)
            assert not done
            script.say(body)
            got = await asked
            assert got[0] == status
            assert json.loads(body).items() <= got[1].items() or status == 400
            script.die()


async def answered(request: Any) -> tuple[int, Any]:
    async with request as response:
        return response.status, await response.json()


async def test_stream_is_kept_alive_while_a_template_is_asked_for(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """A completion with a personality waits for its model before it is even written."""
    model = fake_model(tmp_path, start_delay=1, personalities={"pirate": "Arr."})
    body = {"model": "m:pirate", "prompt": "hi", "stream": True}
    async with (
        make_gateway({"m": model}, limits=LIMITS) as running,
        running.request("POST", "/v1/completions", json=body) as response,
    ):
        assert response.status == 200
        reading = Reading(response)
        await reading.until(lambda got: b": starting, position 1, " in got)
        got = await reading.rest()
    assert json.loads(got[got.index(b"data: ") + 6 :])["error"]["message"]
