"""The fast JSON protocol: what a connection keeps, and what is left when it has ended."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.backend import State
from tests.harness import MakeGateway, eventually, fake_model
from tests.http.fast_json import STREAM, listener_of, nothing_is_left, only_connection
from tests.wire import CHAT, Client, connected, head, post, with_tls

_CHUNKED = "Transfer-Encoding: chunked"


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


@pytest.mark.parametrize("end", ["the client leaves", "aiohttp gets it", "it rests too long"])
async def test_task_of_a_connection_ends_with_it(make_gateway: MakeGateway, end: str) -> None:
    limits = {"keepalive": "200ms"} if end == "it rests too long" else {}
    async with make_gateway({}, limits=limits) as running, connected(running) as client:
        for _ in range(2):  # one task for both
            client.send(post(running, b"{"))
            assert (await client.answer())[0] == 400
        (task,) = (one for one in asyncio.all_tasks() if "FastConnection" in repr(one.get_coro()))
        if end == "the client leaves":
            client.writer.close()
        elif end == "aiohttp gets it":
            client.send(head(running, "GET /ping HTTP/1.1"))
            assert (await client.answer())[0] == 200
        await eventually(task.done)
        assert not task.cancelled()


@pytest.mark.parametrize("tls", [False, True])
async def test_client_that_hangs_up_leaves_nothing(
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
                    await eventually(record.exists)
                    record.unlink()
                await eventually(lambda: bool(listener_of(running).open))
                client.writer.transport.abort()
            await eventually(lambda: nothing_is_left(running))
        async with connected(running, **options) as client:  # within a stream
            client.send(asks("talks", STREAM))
            async with asyncio.timeout(20):
                await client.reader.readuntil(b"data: ")
            client.writer.transport.abort()
        await eventually(lambda: nothing_is_left(running))
        async with connected(running, **options) as client:  # while a model loads
            client.send(asks("loads"))
            await eventually(lambda: any(s.state is State.STARTING for s in scheduler.status()))
            client.writer.transport.abort()
        await eventually(lambda: nothing_is_left(running))
    statuses = [line.split()[3] for line in caplog.messages if "/v1/chat" in line]
    assert set(statuses) == {"200", "499"}
    assert statuses.count("499") >= 4
    assert not [r.getMessage() for r in caplog.records if r.exc_info]


async def test_idle_connection_keeps_nothing_of_its_requests(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with (
        make_gateway({"good": fake_model(tmp_path)}) as running,
        connected(running) as client,
    ):
        client.send(post(running, CHAT + b" " * 30_000) + post(running, STREAM))
        assert (await client.answer())[0] == 200
        assert (await stream_of(client))[1].endswith(b"[DONE]\n\n")
        front = only_connection(running)
        await eventually(lambda: not front.holds_request)
        assert front.received == 0
        sock = front.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_idle_and_half_sent_requests_end_in_time(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
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
        await eventually(lambda: nothing_is_left(running))


@contextlib.contextmanager
def cycles() -> Iterator[list[type]]:
    """The types of the gateway's objects that the block leaves in cycles."""
    kinds: list[type] = []
    gc.collect()
    gc.disable()
    try:
        yield kinds
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds += [type(each) for each in gc.garbage if type(each).__module__.startswith("gateway")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def test_nothing_is_left_to_the_garbage_collector(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
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
        with cycles() as left:
            for _ in range(5):
                await ask()
            await eventually(lambda: not running.gateway.scheduler.in_flight)
    assert left == []


@pytest.mark.parametrize("whole", [True, False])
async def test_ended_connection_is_not_left_to_the_garbage_collector(
    make_gateway: MakeGateway, tmp_path: Path, secured: tuple[dict[str, Any], Any], whole: bool
) -> None:
    """One that aiohttp serves neither: TLS keeps 256 KB for each, which the collector can't see."""
    settings, options = secured
    async with make_gateway({"good": fake_model(tmp_path)}, **settings) as running:

        async def ask() -> None:
            async with connected(running, **options) as client:
                client.send(head(running, "POST /v1/chat/completions HTTP/1.1", _CHUNKED))
                client.send(b"%x\r\n%b\r\n" % (len(CHAT), CHAT))
                if whole:
                    client.send(b"0\r\n\r\n")
                    assert (await client.answer())[0] == 200
                client.writer.transport.abort()
            await eventually(lambda: nothing_is_left(running))

        await ask()
        with cycles() as left:
            await ask()
    assert left == []


@pytest.mark.parametrize("fault", [{"hang": 1}, {"chunks": 500, "pause": 0.01}])
async def test_client_that_hangs_up_leaves_nothing_to_the_garbage_collector(
    make_gateway: MakeGateway, tmp_path: Path, fault: dict[str, Any]
) -> None:
    async with make_gateway({"good": fake_model(tmp_path, **fault)}) as running:
        scheduler = running.gateway.scheduler

        async def leave() -> None:
            async with connected(running) as client:
                client.send(post(running, CHAT if "hang" in fault else STREAM))
                if "hang" in fault:
                    await eventually(lambda: scheduler.in_flight == 1)
                else:
                    await client.reader.readuntil(b"word1")
                client.writer.transport.abort()
            await eventually(lambda: nothing_is_left(running))

        await leave()
        with cycles() as left:
            await leave()
    assert left == []
