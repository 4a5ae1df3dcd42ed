"""Streams stay alive: something goes out in time, whatever is waited for, in each API's own way."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp import web

from gateway.http.response import StartedResponse
from gateway.proxy.heartbeat import Heartbeat, comment
from gateway.proxy.sse import Tail
from gateway.tasks import spawn
from tests.elsewhere import STREAM_HEAD, Asked, Elsewhere
from tests.harness import MakeGateway, Running, fake_model
from tests.scripted import until
from tests.wire import with_tls

#: Seconds. A look every 45 ms.
BEAT = 0.1
LIMITS = {"heartbeat": f"{BEAT}s"}
MESSAGES = [{"role": "user", "content": "hi"}]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def named(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


@dataclass
class Api:
    """One API, its own way to begin, and to go on, and what keeps its streams alive."""

    path: str
    body: dict[str, Any]
    first: bytes
    second: bytes
    last: bytes
    beat: re.Pattern[bytes]
    error: str = ""


WORKING = rb": working, \d+ s\n"
IN_PROGRESS = rb"event: response\.in_progress\ndata: \{[^\n]*\}\n\n"
DELTA = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
OPENING = {"response": {"id": "theirs", "object": "response", "status": "in_progress"}}
APIS = {
    "chat": Api(
        "/v1/chat/completions",
        {"messages": MESSAGES},
        DELTA,
        DELTA.replace(b'"a"', b'"b"'),
        b"data: [DONE]\n\n",
        re.compile(WORKING),
    ),
    "completions": Api(
        "/v1/completions",
        {"prompt": "hi"},
        b'data: {"choices":[{"text":"a"}]}\n\n',
        b'data: {"choices":[{"text":"b"}]}\n\n',
        b"data: [DONE]\n\n",
        re.compile(WORKING),
    ),
    "responses": Api(
        "/v1/responses",
        {"input": "hi"},
        named("response.created", **OPENING) + named("response.in_progress", **OPENING),
        named("response.output_text.delta", item_id="i", delta="b"),
        named("response.completed", response={"id": "theirs", "status": "completed"}),
        re.compile(WORKING + rb"(event: response\.created\ndata: [^\n]*\n\n)?" + IN_PROGRESS),
        "error",
    ),
    "anthropic": Api(
        "/v1/messages",
        {"messages": MESSAGES, "max_tokens": 9},
        named("message_start", message={"usage": {"input_tokens": 3}}),
        named("content_block_delta", delta={"type": "text_delta", "text": "b"}),
        named("message_stop"),
        re.compile(WORKING + rb'event: ping\ndata: \{"type": "ping"\}\n\n'),
        "error",
    ),
}
EVERY_API = pytest.mark.parametrize("api", APIS.values(), ids=APIS)
#: The front door, and aiohttp's.
BOTH_DOORS = pytest.mark.parametrize("query", ["", "?x=1"], ids=["front", "aiohttp"])


@dataclass
class Script:
    """A server elsewhere that writes what the test puts into its queue."""

    server: Elsewhere
    pieces: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)

    async def play(self, asked: Asked) -> None:
        while (piece := await self.pieces.get()) is not None:
            asked.writer.write(piece)
            await asked.writer.drain()
        raise ConnectionAbortedError

    def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.pieces.put_nowait(piece)

    def die(self) -> None:
        self.pieces.put_nowait(None)


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    async with Elsewhere() as server:
        script = Script(server)
        for api in APIS.values():
            server.answers[api.path] = script.play
        yield script


@dataclass
class Reading:
    """The answer to a streaming request as it comes."""

    response: aiohttp.ClientResponse
    got: bytes = b""
    clean: bool | None = None

    async def until(self, condition: Callable[[bytes], Any]) -> bytes:
        async with asyncio.timeout(20):
            while not condition(self.got):
                data = await self.response.content.readany()
                assert data, self.got
                self.got += data
        return self.got

    async def beats(self, api: Api, count: int) -> bytes:
        return await self.until(lambda got: len(api.beat.findall(got)) >= count)

    async def rest(self) -> bytes:
        """All of it; whether its HTTP ended as it should is ``clean``."""
        self.clean = False
        with contextlib.suppress(aiohttp.ClientPayloadError):
            while data := await self.response.content.readany():
                self.got += data
            self.clean = True
        return self.got


@contextlib.asynccontextmanager
async def asking(
    running: Running, api: Api, query: str = "", **more: Any
) -> AsyncIterator[Reading]:
    body = {"model": "m", "stream": True, **api.body}
    async with running.request("POST", api.path + query, json=body, **more) as response:
        yield Reading(response)


@contextlib.asynccontextmanager
async def gateway(make: MakeGateway, script: Script, **settings: Any) -> AsyncIterator[Running]:
    """One whose model ``m`` is ready, and answers as ``script`` says."""
    async with make({"m": {"url": script.server.url}}, **{"limits": LIMITS, **settings}) as running:
        await running.gateway.scheduler.load("m")
        yield running


def without_beats(api: Api, stream: bytes) -> bytes:
    return api.beat.sub(b"", stream)


# --- in every phase, in every API ------------------------------------------------------------


@EVERY_API
@BOTH_DOORS
async def test_from_acceptance_to_the_last_byte(
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
async def test_while_a_model_loads(make_gateway: MakeGateway, tmp_path: Path, api: Api) -> None:
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
async def test_over_tls(
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
async def test_a_stream_that_only_its_head_tells_of(
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
async def test_an_answer_whose_head_tells_of_no_stream(
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


async def test_while_a_template_is_asked_for(make_gateway: MakeGateway, tmp_path: Path) -> None:
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


# --- what is no heartbeat --------------------------------------------------------------------


async def test_a_busy_stream_has_none(make_gateway: MakeGateway, script: Script) -> None:
    api = APIS["chat"]
    async with (
        gateway(make_gateway, script, limits={"heartbeat": "1s"}) as running,
        asking_after(running, api, lambda: script.say(STREAM_HEAD, chunk(api.first))) as reading,
    ):
        for _ in range(15):
            script.say(chunk(api.second))
            before = len(reading.got)
            await reading.until(lambda got, before=before: len(got) > before)
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
async def test_while_the_rest_of_an_event_is_awaited_that_nothing_of_has_gone_out(
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


async def test_a_remark_between_two_lines_of_an_event(
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


async def test_an_answer_that_is_no_stream_and_slow(
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
        await asyncio.sleep(5 * BEAT)
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


# --- what goes wrong -------------------------------------------------------------------------

FORBIDDEN = b'{"error": {"code": 400, "message": "too long a prompt", "type": "invalid"}}'


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
async def test_an_answer_that_is_no_stream_after_a_heartbeat(
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
async def test_events_of_a_known_length(
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
async def test_a_server_that_dies_behind_the_last_event(
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
async def test_a_server_that_dies(
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
async def test_a_process_that_dies_within_an_event(
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


# --- the timer -------------------------------------------------------------------------------


class _Transport(asyncio.Transport):
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.unsent = 0

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self.unsent


class _Client(StartedResponse):
    is_full = False

    async def drain(self) -> None: ...
    async def finish(self) -> None: ...


async def test_a_client_that_reads_nothing_gets_none() -> None:
    transport = _Transport()
    client = _Client(web.StreamResponse(), transport, chunked=False)

    async def open_it(*_: object) -> StartedResponse:
        return client

    heart = Heartbeat(open_it, 0.04, comment)
    heart.start()
    try:
        await eventually(lambda: len(transport.written) >= 2)
        transport.unsent = 1
        written = len(transport.written)
        await asyncio.sleep(0.2)
        assert len(transport.written) == written
        transport.unsent = 0
        await eventually(lambda: len(transport.written) > written)
        client.is_full = True
        written = len(transport.written)
        await asyncio.sleep(0.2)
        assert len(transport.written) == written
    finally:
        heart.stop()


async def test_one_that_was_stopped_opens_nothing() -> None:
    opened = False

    async def open_it(*_: object) -> StartedResponse:
        nonlocal opened
        opened = True
        raise AssertionError

    heart = Heartbeat(open_it, 0.02, comment)
    heart.start()
    heart.stop()
    await asyncio.sleep(0.1)
    assert not opened
    assert await heart.settled() is None


async def test_a_client_that_went_before_it_was_opened() -> None:
    async def open_it(*_: object) -> StartedResponse:
        raise ConnectionResetError

    heart = Heartbeat(open_it, 0.02, comment)
    heart.start()
    heart.waiting = lambda: b"queued"
    try:
        await asyncio.sleep(0.1)
        assert await heart.settled() is None
    finally:
        heart.stop()


def test_what_of_an_event_has_passed() -> None:
    tail = Tail()
    assert (tail.latest, tail.half()) == (None, b"")
    for piece, half in (
        (b"data: a", b"data: a"),
        (b"b\n", b"data: ab\n"),
        (b"\n", b""),
        (b": x\n", b": x\n"),
        (b"data: y\r\n\r\nda", b"da"),
        (b"ta", b"data"),
        (b": ", b"data: "),
        (b"z", None),
    ):
        tail.feed(piece)
        assert (tail.latest, tail.half()) == (piece, half)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)
