"""The front door, byte by byte: what it serves, what it hands over, and what it never holds."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.backends.backend import State
from gateway.http.entrance import Entrance
from gateway.http.fast_json import MAX_HEAD, FastConnection
from gateway.http.fast_listener import MAX_BODY, FastListener
from gateway.http.heads import Head
from gateway.proxy import relay
from gateway.tasks import cancel_and_wait, spawn
from tests.elsewhere import Asked, Elsewhere
from tests.harness import MakeGateway, Running, fake_model
from tests.wire import CHAT, Client, connected, counted, head, post, small, with_tls

STREAM = CHAT[:-1] + b', "stream": true}'
FIRST = "POST /v1/chat/completions HTTP/1.1"


def listener_of(running: Running) -> FastListener:
    found = running.gateway._listeners._runner.server
    assert isinstance(found, Entrance)
    return found.listener


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def unnamed(model: str) -> bytes:
    """A request for a model that isn't there: its answer says which."""
    return CHAT.replace(b"good", model.encode())


def answers_in(data: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Status, headers and body of each answer; whatever is no answer fails."""
    found = []
    while data:
        text, _, data = data.partition(b"\r\n\r\n")
        line, *lines = text.decode().split("\r\n")
        assert line.startswith("HTTP/1.1 ")
        fields = [line.partition(": ") for line in lines]
        headers = {name.lower(): value for name, _, value in fields}
        assert len(headers) == len(fields)
        body = b""
        if "content-length" in headers:
            assert "transfer-encoding" not in headers
            length = int(headers["content-length"])
            body, data = data[:length], data[length:]
            assert len(body) == length
        else:
            assert headers["transfer-encoding"] == "chunked"
            size = 1
            while size:
                digits, _, data = data.partition(b"\r\n")
                size = int(digits, 16)
                assert data[size : size + 2] == b"\r\n"
                body, data = body + data[:size], data[size + 2 :]
        found.append((int(line.split()[1]), headers, body))
    return found


async def stream_of(client: Client) -> tuple[dict[str, str], bytes]:
    """Headers and body of a chunked answer."""
    async with asyncio.timeout(20):
        text = (await client.reader.readuntil(b"\r\n\r\n")).decode()
        assert text.startswith("HTTP/1.1 200 ")
        fields = (line.partition(": ") for line in text.split("\r\n")[1:-2])
        headers = {name.lower(): value for name, _, value in fields}
        assert headers["transfer-encoding"] == "chunked"
        body = b""
        while size := int(await client.reader.readline(), 16):
            body += (await client.reader.readexactly(size + 2))[:-2]
        assert await client.reader.readline() == b"\r\n"
        return headers, body


async def narrow(running: Running, taking: socket.socket) -> FastConnection:
    """The connection of ``taking``, once there is one, with little room in the kernel."""
    taking.setblocking(False)
    await until(lambda: len(listener_of(running).open) == 1)
    (front,) = listener_of(running).open
    assert isinstance(front, FastConnection)
    sock = front.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return front


# --- one meaning ---------------------------------------------------------------------------

LINES = [
    b"Host: 127.0.0.1",
    b"Host:",
    b"host: evil.example",
    b"Content-Length: 4",
    b"content-length:\t0004 ",
    b"Content-Length: 5, 5",
    b"Content-Length: +4",
    b"Content-Length : 4",
    b"Content-Length: 99999999",
    b"Content_Length: 7",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding:",
    b"Authorization: Bearer a",
    b"Content-Type: application/json",
    b"Connection: close",
    b"Connection: keep-alive, close",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Key1: x",
    b"X-Forwarded-For: 203.0.113.9",
    b"X: y ",
    b"X:\ty\xff",
    b"X: y\x00",
    b"X: y\rz",
    b"X: y\nz",
    b"X\x00: y",
    b" folded",
    b"\tfolded",
    b": y",
    b"no colon",
    b"",
]
DAMAGE = st.tuples(
    st.integers(0, 400), st.sampled_from([b"", b" ", b"\t", b"\r", b"\n", b"\0", b":", b"\x7f"])
)


async def test_a_head_means_what_it_means_to_aiohttp(make_gateway: MakeGateway) -> None:
    """Nothing is served here that aiohttp would refuse, or read otherwise."""
    loop = asyncio.get_running_loop()
    taken = 0
    known: list[Head] = []

    def by_aiohttp(data: bytes) -> Any:
        parser = HttpRequestParser(
            BaseProtocol(loop), loop, 2**16, max_line_size=8190, max_field_size=8190
        )
        ((message, payload),), upgraded, tail = parser.feed_data(data)
        assert not upgraded
        assert not tail
        return message, payload

    def fields(headers: Any) -> list[tuple[str, str]]:
        # In front a head is kept for any length.
        kept = ((name.lower(), value) for name, value in headers.items())
        return sorted(pair for pair in kept if pair[0] != "content-length")

    async with make_gateway({}) as running:
        entrance = listener_of(running)

        @settings(max_examples=1000)
        @given(
            st.permutations(LINES[:1] + LINES[3:4] + LINES[12:14]),
            st.lists(st.tuples(st.integers(0, 8), st.sampled_from(LINES)), max_size=2),
            st.lists(DAMAGE, max_size=2),
        )
        @example([*LINES[:1], *LINES[3:4]], [(1, b"X: y ")], [])
        @example([*LINES[:1], *LINES[3:4]], [(1, b"Sec-WebSocket-Key1: x")], [])
        @example([*LINES[:1], *LINES[3:4]], [(1, b"User-Agent: x"), (1, b"User-Agent: x")], [])
        def same(
            lines: list[bytes], more: list[tuple[int, bytes]], damages: list[tuple[int, bytes]]
        ) -> None:
            nonlocal taken
            lines = list(lines)
            for place, line in more:
                lines.insert(place, line)
            data = bytearray(b"\r\n".join([FIRST.encode(), *lines, b"", b""]))
            for place, put in damages:
                data[place : place + (place % 2)] = put
            raw = bytes(data)
            end = raw.find(b"\r\n\r\n")
            before = [head.again(raw) for head in known]
            if end < 0 or (found := entrance.heads.read(raw[: end + 4])) is None:
                assert not any(before)
                return
            whole = found[0], end + 4, end + 4 + found[1]
            assert [again for again in before if again is not None] in ([], [whole])
            assert found[0].again(raw) == whole
            known[:] = found[:1]
            taken += 1
            parsed, length = found
            message, payload = by_aiohttp(raw[: end + 4] + b"x" * length)
            assert message.method == "POST"
            assert message.path == parsed.path
            assert tuple(message.version) == (1, 1)
            assert fields(message.headers) == fields(parsed.headers)
            assert message.should_close is not parsed.keep_alive
            assert not message.chunked
            assert message.compression is None
            assert payload.total_bytes == length

        same()
    assert taken > 100


async def test_any_cutting_gives_the_same_answers(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"good": fake_model(tmp_path)}) as running:
        await running.gateway.scheduler.load("good")
        sent = b"".join(
            (
                post(running, unnamed("first")),
                post(running, CHAT, "X: y"),
                post(running, b""),
                post(running, STREAM),
                post(running, unnamed("second")),
                head(running, "GET /models HTTP/1.1"),
                post(running, unnamed("third")),
                post(running, CHAT, "Connection: close"),
            )
        )
        loop = asyncio.get_running_loop()

        async def answers(cuts: list[tuple[int, bool]]) -> list[tuple[int, set[str], bytes]]:
            async with connected(running) as client:
                await until(lambda: len(listener_of(running).open) == 1)
                (front,) = listener_of(running).open
                transport = front.transport
                begin = 0
                for cut, pause in [*sorted(cuts), (len(sent), False)]:
                    if cut > begin and not transport.is_closing():
                        # As the transport does, with exactly these bytes.
                        transport.get_protocol().data_received(sent[begin:cut])
                    begin = max(begin, cut)
                    if pause:
                        await asyncio.sleep(0)
                got = await client.closed()
            await counted(running, 0)
            return [(status, set(headers), body) for status, headers, body in answers_in(got)]

        whole = await answers([])
        said = [
            (status, re.findall(rb"there is no model '(\w+)'", body)) for status, _, body in whole
        ]
        assert said == [
            (404, [b"first"]),
            (200, []),
            (400, []),
            (200, []),
            (404, [b"second"]),
            (200, []),
            (404, [b"third"]),
            (200, []),
        ]

        @settings(max_examples=50)
        @given(st.lists(st.tuples(st.integers(1, len(sent)), st.booleans()), max_size=12))
        @example([(place, True) for place in range(1, len(sent), 7)])
        @example([(place, False) for place in range(1, len(sent))])
        def same(cuts: list[tuple[int, bool]]) -> None:
            assert asyncio.run_coroutine_threadsafe(answers(cuts), loop).result(60) == whole

        await asyncio.to_thread(same)


ALIKE: list[tuple[bytes, tuple[str, ...]]] = [
    (CHAT, ()),
    (STREAM, ()),
    (CHAT, ("Connection: close",)),
    (STREAM, ("Connection: close",)),
    (b"{", ()),
    (b"{", ("Connection: close",)),
    (unnamed("none"), ("Origin: https://a.example",)),
    (CHAT, ("Origin: https://a.example",)),
    (STREAM, ("Origin: https://b.example",)),
    (CHAT, ("X-Api-Key: x",)),
    (CHAT, ("X-Personality: none",)),
    (CHAT, ("X-Personality: unknown",)),
]


async def test_answers_are_those_of_aiohttp(make_gateway: MakeGateway, tmp_path: Path) -> None:
    """But for the date, and the number of the request."""
    cors = {"origins": ["https://a.example"]}
    async with make_gateway({"good": fake_model(tmp_path)}, cors=cors) as running:
        assert running.gateway.ring is not None
        _, limited = await running.gateway.ring.create("limited", "", limits={"rpm": 600})
        requests = [post(running, body, *lines) for body, lines in ALIKE]
        good = requests[0]
        requests += [
            good.replace(b"Bearer llmgw", b"Bearer wrong"),
            good.replace(b"Authorization", b"Nothing"),
            good.replace(b"127.0.0.1", b"evil.example.com"),
            good.replace(running.key.encode(), limited.encode()),
            good.replace(b"/v1/chat/completions", b"/v1/messages"),
            good.replace(b"/v1/chat/completions", b"/v1/messages").replace(CHAT, b"{" * len(CHAT)),
        ]
        await running.gateway.scheduler.load("good")

        async def answer(request: bytes, *, here: bool) -> tuple[int, dict[str, str], bytes]:
            async with connected(running) as client:
                client.send(request)
                async with asyncio.timeout(10):
                    got = await client.reader.readuntil(b"\r\n\r\n")
                    assert len(listener_of(running).open) <= here
                    if b"\r\nConnection: close" in got:
                        got += await client.reader.read()
                    elif b"\r\nContent-Length: " in got:
                        length = re.search(rb"Content-Length: (\d+)", got)
                        assert length is not None
                        got += await client.reader.readexactly(int(length[1]))
                    else:
                        got += await client.reader.readuntil(b"\r\n0\r\n\r\n")
            ((status, headers, body),) = answers_in(got)
            for name in headers:
                if name in ("date", "x-request-id") or "ratelimit" in name:
                    headers[name] = ""
            return status, headers, body

        for request in requests:
            by_front = await answer(request, here=True)
            there = request.replace(b" HTTP/1.1\r\n", b"?x=1 HTTP/1.1\r\n", 1)
            assert by_front == await answer(there, here=False), request


# --- the borders ---------------------------------------------------------------------------


async def test_what_is_served_here_and_what_is_handed_over(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    def padded(size: int) -> bytes:
        """A request whose head has ``size`` bytes."""
        short = len(post(running, CHAT, "X: ")) - len(CHAT)
        made = post(running, CHAT, "X: " + "y" * (size - short))
        assert made.index(b"\r\n\r\n") + 4 == size
        return made

    def lines(count: int) -> bytes:
        return post(running, CHAT, *(f"X-{n}: y" for n in range(count - 3)))

    async with make_gateway({"good": fake_model(tmp_path)}) as running:
        full = CHAT + b" " * (MAX_BODY - len(CHAT))
        plain = post(running, CHAT)
        for request, here in (
            (plain, True),
            (post(running, full), True),
            (post(running, full + b" "), False),
            (padded(MAX_HEAD), True),
            (padded(MAX_HEAD + 1), False),
            (lines(100), True),
            (lines(101), False),
            (plain.replace(b"Content-Length: ", b"content-LENGTH:\t000"), True),
            (plain.replace(b"/v1/chat", b"http://127.0.0.1/v1/chat"), False),
            (plain.replace(b"/v1/chat", b"/v1/%63hat"), False),
            (post(running, CHAT, "X: y", "x: z"), False),
            (post(running, CHAT, "TE: trailers"), False),
            (post(running, CHAT, "Content-Encoding: identity"), False),
            (b"\r\n" + plain, False),
        ):
            async with connected(running) as client:
                client.send(request)
                assert (await client.answer())[0] == 200, request[:200]
                assert len(listener_of(running).open) == here, request[:200]
                client.send(plain)  # whoever serves it goes on
                assert (await client.answer())[0] == 200
        # Refused by aiohttp, and at once: none waits for a head that never comes.
        for request in (
            plain.replace(b"\r\n", b"\n"),
            plain.replace(b"\r\n", b"\n", 1),
            post(running, CHAT, "X: y\r\n folded"),
            post(running, CHAT, "X: y\x00"),
            post(running, CHAT, "X : y"),
            post(running, CHAT, "X: y\rz"),
            post(running, CHAT, "Host: 127.0.0.1"),
            post(running, CHAT, f"Content-Length: {len(CHAT)}"),
            post(running, CHAT, "Transfer-Encoding: chunked"),
            plain.replace(b"Content-Length: ", b"Content-Length: +"),
            plain.replace(b"Content-Length: ", b"Content-Length: 0x"),
            plain.replace(b"Content-Length: ", b"Content-Length : "),
            plain.replace(b"Host: 127.0.0.1\r\n", b""),
        ):
            async with connected(running) as client:
                client.send(request)
                assert await client.error() == (400, "malformed_request"), request


async def test_bodies_over_the_limit(make_gateway: MakeGateway, tmp_path: Path) -> None:
    models, limits = {"good": fake_model(tmp_path)}, {"max_body": 1024}
    async with make_gateway(models, limits=limits) as running:
        body = CHAT + b" " * (1024 - len(CHAT))
        for request, status, here in (
            (post(running, body), 200, 1),
            (post(running, body + b" "), 413, 0),
        ):
            async with connected(running) as client:
                client.send(request)
                assert (await client.answer())[0] == status
                assert len(listener_of(running).open) == here


async def test_clients_that_are_aiohttps(make_gateway: MakeGateway, tmp_path: Path) -> None:
    """Also behind a request that was answered here."""
    async with make_gateway({"good": fake_model(tmp_path)}) as running:
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(CHAT), CHAT)
        for before in (b"", post(running, CHAT)):

            async def sent(client: Client, data: bytes, before: bytes = before) -> None:
                client.send(before + data)
                if before:
                    assert (await client.answer())[0] == 200

            async with connected(running) as client:  # chunked
                await sent(client, head(running, FIRST, "Transfer-Encoding: chunked") + chunks)
                assert (await client.answer())[0] == 200
            async with connected(running) as client:  # the body waits for a word
                request = post(running, CHAT, "Expect: 100-continue")
                await sent(client, request[: -len(CHAT)])
                async with asyncio.timeout(10):
                    assert await client.reader.readuntil(b"\r\n\r\n") == (
                        b"HTTP/1.1 100 Continue\r\n\r\n"
                    )
                client.send(CHAT)
                assert (await client.answer())[0] == 200
            async with connected(running) as client:  # HTTP/1.0, whole and streamed
                await sent(client, post(running, CHAT).replace(b"HTTP/1.1", b"HTTP/1.0"))
                status, headers, _ = await client.answer()
                assert status == 200
                assert "transfer-encoding" not in headers
                assert await client.closed() == b""
            async with connected(running) as client:
                await sent(client, post(running, STREAM).replace(b"HTTP/1.1", b"HTTP/1.0"))
                got = await client.closed()
                assert b"chunked" not in got.lower()
                assert got.endswith(b"data: [DONE]\n\n")
            async with connected(running) as client:  # HEAD
                await sent(client, head(running, "HEAD /ping HTTP/1.1"))
                async with asyncio.timeout(10):
                    got = await client.reader.readuntil(b"\r\n\r\n")
                assert got.startswith(b"HTTP/1.1 200 ")
                client.send(post(running, CHAT))
                assert (await client.answer())[0] == 200


# --- what is kept of a head ----------------------------------------------------------------


async def test_a_known_head_is_judged_anew(make_gateway: MakeGateway, tmp_path: Path) -> None:
    tls, trusting = with_tls(tmp_path)
    async with (
        make_gateway({"good": fake_model(tmp_path)}, tls=tls, allowed_hosts=["*"]) as running,
        connected(running, ssl=trusting) as client,
    ):
        ring = running.gateway.ring
        assert ring is not None
        record, key = await ring.create("short", "")
        request = post(running, CHAT).replace(running.key.encode(), key.encode())

        async def hsts(status: int) -> str | None:
            client.send(request)
            answered, headers, _ = await client.answer()
            assert answered == status
            return headers.get("strict-transport-security")

        assert await hsts(200) is None
        running.gateway._listeners._state.serves(["box.example.com"], local=False)
        assert await hsts(200) is not None
        await ring.revoke(record.id)
        assert await hsts(401) is not None
        assert len(listener_of(running).heads._kept) == 1


async def test_heads_are_not_kept_without_end(make_gateway: MakeGateway) -> None:
    async with make_gateway({}) as running, connected(running) as client:
        for number in range(600):
            client.send(post(running, b"{", f"X: {number}"))
            assert (await client.answer())[0] == 400
        assert len(listener_of(running).heads._kept) <= 256


@pytest.mark.parametrize("end", ["the client leaves", "aiohttp gets it", "it rests too long"])
async def test_the_task_of_a_connection_ends_with_it(make_gateway: MakeGateway, end: str) -> None:
    limits = {"keepalive": "200ms"} if end == "it rests too long" else {}
    async with make_gateway({}, limits=limits) as running, connected(running) as client:
        for _ in range(2):  # one task for both
            client.send(post(running, b"{"))
            assert (await client.answer())[0] == 400
        (front,) = listener_of(running).open
        task = front._task
        assert task is not None
        if end == "the client leaves":
            client.writer.close()
        elif end == "aiohttp gets it":
            client.send(head(running, "GET /ping HTTP/1.1"))
            assert (await client.answer())[0] == 200
        await until(task.done)
        assert not task.cancelled()


# --- who leaves ----------------------------------------------------------------------------


def nothing_is_left(running: Running) -> bool:
    connections = running.gateway._listeners.connections
    return not (
        connections.count
        or connections._by_network
        or connections._heads
        or connections._bodies
        or connections._answers
        or connections._resting
        or listener_of(running).open
        or running.gateway.scheduler.in_flight
    )


@pytest.mark.parametrize("tls", [False, True])
async def test_hanging_up(
    make_gateway: MakeGateway, tmp_path: Path, caplog: pytest.LogCaptureFixture, tls: bool
) -> None:
    caplog.set_level("INFO", "gateway.access")
    settings: dict[str, Any] = {}
    options: dict[str, Any] = {}
    if tls:
        settings["tls"], options["ssl"] = with_tls(tmp_path)
    record = tmp_path / "record"
    models = {
        "good": fake_model(tmp_path),
        "hangs": fake_model(tmp_path, hang=1, record=record),
        "talks": fake_model(tmp_path, chunks=100_000, pause=0.01),
        "loads": fake_model(tmp_path, never_healthy=1),
    }
    async with make_gateway(models, **settings) as running:
        whole = post(running, CHAT)
        scheduler = running.gateway.scheduler

        def asks(model: str, body: bytes = CHAT) -> bytes:
            return post(running, body.replace(b"good", model.encode()))

        phases = (b"", whole[:5], whole[:50], whole[:-1], asks("hangs"), asks("hangs") + whole)
        for before, phase in itertools.product((b"", whole), phases):
            async with connected(running, **options) as client:
                client.send(before + phase)
                if before:
                    assert (await client.answer())[0] == 200
                if b"hangs" in phase:
                    await until(record.exists)
                    record.unlink()
                await until(lambda: bool(listener_of(running).open))
                client.writer.transport.abort()
            await until(lambda: nothing_is_left(running))
        async with connected(running, **options) as client:  # within a stream
            client.send(asks("talks", STREAM))
            async with asyncio.timeout(20):
                await client.reader.readuntil(b"data: ")
            client.writer.transport.abort()
        await until(lambda: nothing_is_left(running))
        async with connected(running, **options) as client:  # while a model loads
            client.send(asks("loads"))
            await until(lambda: any(s.state is State.STARTING for s in scheduler.status()))
            client.writer.transport.abort()
        await until(lambda: nothing_is_left(running))
    statuses = [line.split()[3] for line in caplog.messages if "/v1/chat" in line]
    assert set(statuses) == {"200", "499"}
    assert statuses.count("499") >= 4
    assert not [r.getMessage() for r in caplog.records if r.exc_info]


# --- who does not read, and who sends too much ---------------------------------------------


async def test_a_stream_that_is_not_read_waits(make_gateway: MakeGateway, tmp_path: Path) -> None:
    """At most 256 KiB of it are here, whoever serves it, and others are not kept waiting."""
    models = {"good": fake_model(tmp_path, chunks=100_000), "other": fake_model(tmp_path)}
    async with make_gateway(models) as running:
        connections = running.gateway._listeners.connections
        loop = asyncio.get_running_loop()
        for target in (b"/v1/chat/completions ", b"/v1/chat/completions?x=1 "):
            with small(running) as taking:
                transport = (await narrow(running, taking)).transport
                request = post(running, STREAM).replace(b"/v1/chat/completions ", target)
                await loop.sock_sendall(taking, request)
                await until(lambda: bool(connections._answers))
                async with connected(running) as client:
                    client.send(post(running, CHAT.replace(b"good", b"other")))
                    assert (await client.answer())[0] == 200
                held = transport.get_write_buffer_size()
                assert 0 < held <= 256 * 1024
                # It goes on when it is read, and waits again.
                taking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
                got = 0
                async with asyncio.timeout(20):
                    while got < 2**20:
                        got += len(await loop.sock_recv(taking, 1 << 20))
                        assert transport.get_write_buffer_size() <= 256 * 1024
            await until(lambda: nothing_is_left(running))


async def test_a_stream_that_is_not_read_waits_with_tls(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    tls, trusting = with_tls(tmp_path)
    async with make_gateway({"good": fake_model(tmp_path, chunks=100_000)}, tls=tls) as running:
        connections = running.gateway._listeners.connections
        async with connected(running, ssl=trusting) as client:
            await until(lambda: len(listener_of(running).open) == 1)
            (front,) = listener_of(running).open
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            kernel = front.transport.get_extra_info("socket")
            kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            client.send(post(running, STREAM))
            await until(lambda: bool(connections._answers))
            held = front.transport.get_write_buffer_size()
            assert 0 < held <= 256 * 1024
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            async with asyncio.timeout(20):  # it goes on when it is read
                await client.reader.readexactly(2 * held)
        await until(lambda: nothing_is_left(running))


async def test_answers_that_nobody_reads_are_not_piled_up(make_gateway: MakeGateway) -> None:
    async with make_gateway({}, limits={"send_timeout": "1s"}) as running:
        with small(running) as taking:
            front = await narrow(running, taking)
            request = post(running, b"{" + b" " * 1000).replace(b"Bearer llm", b"Bearer x") * 16
            loop = asyncio.get_running_loop()
            held = 0

            def look() -> None:
                nonlocal held
                if listener_of(running).open:
                    held = max(held, front.transport.get_write_buffer_size() + front.received)
                    loop.call_soon(look)

            look()
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(20):
                    while True:  # until it is no longer read, and then cut off
                        await loop.sock_sendall(taking, request)
        await counted(running, 0)
    assert 0 < held < 1024 * 1024


async def test_requests_behind_one_another_are_not_piled_up(make_gateway: MakeGateway) -> None:
    async with make_gateway({}) as running, connected(running) as client:
        count = 3000
        refused = post(running, b"{" + b" " * 1000).replace(b"Bearer llm", b"Bearer x")
        client.send(refused * count)
        await until(lambda: len(listener_of(running).open) == 1)
        (front,) = listener_of(running).open
        held = 0
        for _ in range(count):
            assert (await client.answer())[0] in (401, 429)
            held = max(held, front.received)
        assert 0 < held < 1024 * 1024 < len(refused) * count
        await until(lambda: front.received == 0)
        client.send(post(running, b"{"))  # and it is still read
        assert (await client.answer())[0] == 400


async def test_what_an_idle_connection_keeps(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with (
        make_gateway({"good": fake_model(tmp_path)}) as running,
        connected(running) as client,
    ):
        client.send(post(running, CHAT + b" " * 30_000) + post(running, STREAM))
        assert (await client.answer())[0] == 200
        assert (await stream_of(client))[1].endswith(b"[DONE]\n\n")
        (front,) = listener_of(running).open
        await until(lambda: front._request is None)
        assert front.received == 0
        assert front._expected is None
        assert front._started_response is None
        sock = front.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_idle_and_half_sent_requests(make_gateway: MakeGateway, tmp_path: Path) -> None:
    limits = {"keepalive": "300ms", "header_timeout": "300ms", "body_timeout": "300ms"}
    async with make_gateway({"good": fake_model(tmp_path)}, limits=limits) as running:
        whole = post(running, CHAT)
        for before in (b"", whole):
            for rest, answer in (
                (whole[:20], (408, "request_timeout")),
                (whole[:-1], (408, "request_timeout")),
            ):
                async with connected(running) as client:
                    client.send(before + rest)
                    if before:
                        assert (await client.answer())[0] == 200
                    assert await client.error() == answer
                    await client.closed()
        async with connected(running) as client:
            client.send(whole + whole)
            assert [(await client.answer())[0] for _ in range(2)] == [200, 200]
            assert await client.closed() == b""
        await until(lambda: nothing_is_left(running))


# --- the end -------------------------------------------------------------------------------


async def test_the_end(make_gateway: MakeGateway, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    models = {"good": fake_model(tmp_path), "slow": fake_model(tmp_path, gate=gate)}
    async with contextlib.AsyncExitStack() as stack:
        running = await stack.enter_async_context(make_gateway(models))
        clients = contextlib.AsyncExitStack()
        async with clients:
            idle, busy, half, fresh = [
                await clients.enter_async_context(connected(running)) for _ in range(4)
            ]
            idle.send(post(running, CHAT))
            assert (await idle.answer())[0] == 200
            half.send(post(running, CHAT)[:50])
            busy.send(post(running, STREAM.replace(b"good", b"slow")) + post(running, CHAT))
            got = await asyncio.wait_for(busy.reader.readuntil(b"word0"), 20)
            hurry = asyncio.Event()
            ending = spawn(running.gateway.drain(hurry), name="drain")
            await running.gateway.lifecycle.stopping.wait()
            for client in (idle, fresh):
                client.send(post(running, CHAT))
                assert await client.error() == (503, "shutting_down")
            assert not ending.done()
            await asyncio.to_thread(gate.write_bytes, b"")
            got += await asyncio.wait_for(busy.reader.readuntil(b"\r\n0\r\n\r\n"), 20)
            assert got.count(b"HTTP/1.1 ") == 1
            assert b"[DONE]" in got
            assert await busy.error() == (503, "shutting_down")
            async with asyncio.timeout(20):
                await ending
            leaving = spawn(stack.aclose(), name="leave")
            for client in (idle, busy, half, fresh):
                assert await client.closed() == b""
        async with asyncio.timeout(20):
            await leaving


async def test_what_is_complete_still_goes_out_in_the_end(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        models = {"good": fake_model(tmp_path, chunks=500)}
        running = await stack.enter_async_context(make_gateway(models))
        with small(running) as taking:
            front = await narrow(running, taking)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(taking, post(running, STREAM))
            await until(lambda: bool(running.gateway.accounting.recent))  # that is all of it
            assert front.transport.get_write_buffer_size()
            leaving = spawn(stack.aclose(), name="leave")
            got = b""
            async with asyncio.timeout(20):
                while data := await loop.sock_recv(taking, 1 << 20):
                    got += data
                await leaving
    ((status, _, body),) = answers_in(got)
    assert status == 200
    assert body.endswith(b"data: [DONE]\n\n")


async def test_the_end_waits_for_who_reads_slowly(make_gateway: MakeGateway) -> None:
    async with contextlib.AsyncExitStack() as stack:
        running = await stack.enter_async_context(make_gateway({}))
        with small(running) as taking:
            front = await narrow(running, taking)
            loop = asyncio.get_running_loop()
            refused = post(running, b"{").replace(b"Bearer llm", b"Bearer x")
            sending = spawn(loop.sock_sendall(taking, refused * 300), name="send")
            await until(lambda: front.flow.full)
            ending = spawn(running.gateway.drain(asyncio.Event()), name="drain")
            await running.gateway.lifecycle.stopping.wait()
            got = b""
            async with asyncio.timeout(20):
                while front.flow.full:
                    assert not ending.done()
                    got += await loop.sock_recv(taking, 4096)
                while not ending.done():
                    got += await loop.sock_recv(taking, 4096)
            await cancel_and_wait(sending)
            leaving = spawn(stack.aclose(), name="leave")
            async with asyncio.timeout(20):
                while data := await loop.sock_recv(taking, 1 << 20):
                    got += data
                await leaving
    assert {status for status, _, _ in answers_in(got)} <= {401, 429}


async def test_the_end_waits_for_an_answer_that_was_made_meanwhile(
    make_gateway: MakeGateway,
) -> None:
    asked, go = asyncio.Event(), asyncio.Event()
    body = json.dumps({"choices": [], "padding": "x" * 200_000}).encode()

    async def answer(request: Asked) -> None:
        asked.set()
        await go.wait()
        framing = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        request.writer.write(b"HTTP/1.1 200 OK\r\n" + framing + body)

    async with Elsewhere() as there, contextlib.AsyncExitStack() as stack:
        there.answers["/v1/chat/completions"] = answer
        running = await stack.enter_async_context(make_gateway({"good": {"url": there.url}}))
        with small(running) as taking:
            front = await narrow(running, taking)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(taking, post(running, CHAT))
            lifecycle = running.gateway.lifecycle
            async with asyncio.timeout(20):
                await asked.wait()
                ending = spawn(running.gateway.drain(asyncio.Event()), name="drain")
                await until(lambda: lifecycle._quiet is not None)
                go.set()
                await until(lambda: front.flow.full)
                got = b""
                while front.flow.full:
                    got += await loop.sock_recv(taking, 4096)
                    assert not front.flow.full or not ending.done()
                await ending
            leaving = spawn(stack.aclose(), name="leave")
            async with asyncio.timeout(20):
                while data := await loop.sock_recv(taking, 1 << 20):
                    got += data
                await leaving
    ((status, _, answered),) = answers_in(got)
    assert status == 200
    assert len(answered) >= len(body)


async def test_a_second_signal_cuts_what_runs(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        models = {"hangs": fake_model(tmp_path, hang=1, record=tmp_path / "record")}
        running = await stack.enter_async_context(make_gateway(models))
        async with connected(running) as client:
            client.send(post(running, CHAT.replace(b"good", b"hangs")))
            await until((tmp_path / "record").exists)
            hurry = asyncio.Event()
            hurry.set()
            async with asyncio.timeout(20):
                await running.gateway.drain(hurry)
                await stack.aclose()
            assert await client.closed() == b""


# --- what fails within an answer -----------------------------------------------------------


@pytest.mark.parametrize("query", ["", "?x=1"])
async def test_what_fails_behind_the_head_is_no_clean_end(
    make_gateway: MakeGateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    query: str,
) -> None:
    models = {"good": fake_model(tmp_path, start_delay=1, garbage=1)}
    async with make_gateway(models, limits={"heartbeat": "0.1s"}) as running:
        target = f"/v1/chat/completions{query}".encode()
        request = post(running, STREAM).replace(b"/v1/chat/completions", target)
        async with connected(running) as client:  # the stream was opened while the model loaded
            client.send(request + post(running, CHAT))
            got = await client.closed()
            assert got.count(b"HTTP/1.1 ") == 1
            assert b"is not HTTP/1.1" in got
            assert not got.endswith(b"\r\n0\r\n\r\n")
        assert not [r.getMessage() for r in caplog.records if r.exc_info]

        def broken(*_: object) -> None:
            raise RuntimeError("a bug of ours")

        # What can't happen, happens once the head has gone out.
        monkeypatch.setattr(relay, "_pump", broken)
        await running.gateway.scheduler.unload("good")
        async with connected(running) as client:
            client.send(request.replace(b'"stream"', b'"seed": 1, "stream"'))
            await client.closed()
        running.gateway.library.catalog.models["good"].env["FAKE_GARBAGE"] = ""
        async with connected(running) as client:
            client.send(request + post(running, CHAT))
            got = await client.closed()
            assert got.count(b"HTTP/1.1 ") == 1
            assert not got.endswith(b"0\r\n\r\n")
        assert "a bug of ours" in caplog.text
        await until(lambda: nothing_is_left(running))


@pytest.mark.parametrize("query", ["", "?x=1"])
async def test_a_stream_that_breaks_over_tls(
    make_gateway: MakeGateway, tmp_path: Path, caplog: pytest.LogCaptureFixture, query: str
) -> None:
    """Its connection is closed by whoever breaks it off, and once more behind the answer."""
    tls, trusting = with_tls(tmp_path)
    async with make_gateway({"good": fake_model(tmp_path, die_after=3)}, tls=tls) as running:
        target = f"/v1/chat/completions{query}".encode()
        async with connected(running, ssl=trusting) as client:
            client.send(post(running, STREAM).replace(b"/v1/chat/completions", target))
            got = await client.closed()
        assert b"word2" in got
        assert not got.endswith(b"\r\n0\r\n\r\n")
        await until(lambda: nothing_is_left(running))
    gc.collect()  # a task that failed and that nobody awaits says so when it goes
    assert not [r.getMessage() for r in caplog.records if r.exc_info]


async def test_nothing_is_left_to_the_collector(make_gateway: MakeGateway, tmp_path: Path) -> None:
    """What a request was made of, its answer above all, is gone with it: nothing is in cycles."""
    async with (
        make_gateway({"good": fake_model(tmp_path)}) as running,
        connected(running) as client,
    ):

        async def ask() -> None:
            client.send(post(running, CHAT) + post(running, STREAM))
            assert (await client.answer())[0] == 200
            assert (await stream_of(client))[1].endswith(b"[DONE]\n\n")

        await ask()
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                await ask()
            await until(lambda: not running.gateway.scheduler.in_flight)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            kinds = [type(found) for found in gc.garbage]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert [kind for kind in kinds if kind.__module__.startswith("gateway")] == []
