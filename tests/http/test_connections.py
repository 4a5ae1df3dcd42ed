"""Connections that are too slow or too many: ended, and the gateway goes on for everybody else."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.harness import MakeGateway, fake_model
from tests.wire import (
    CHAT,
    Client,
    connected,
    counted,
    head,
    post,
    small,
    still_serves,
    with_tls,
)

pytestmark = pytest.mark.slow


async def test_head_that_never_ends_is_a_408(make_gateway: MakeGateway, tmp_path: Path) -> None:
    limits = {"header_timeout": "300ms"}
    async with make_gateway({"good": fake_model(tmp_path)}, limits=limits) as running:
        async with connected(running) as client:
            client.send(b"GET /models HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            drip, loop = client, asyncio.get_running_loop()

            def more() -> None:
                if not drip.writer.is_closing():
                    drip.send(b"X: y\r\n")
                    loop.call_later(0.05, more)

            more()
            assert await client.error() == (408, "request_timeout")
            await client.closed()
        async with connected(running) as client:  # nothing at all gets nothing at all
            assert await client.closed() == b""
        async with connected(running) as client:  # the second request of a connection, too
            client.send(head(running, "GET /ping HTTP/1.1"))
            assert (await client.answer())[0] == 200
            client.send(b"GET /ping HTTP/1.1\r\nHo")
            assert await client.error() == (408, "request_timeout")
            await client.closed()
        await still_serves(running)


async def test_idle_connections_are_closed(make_gateway: MakeGateway) -> None:
    limits = {"keepalive": "200ms", "header_timeout": "10s"}
    async with make_gateway({}, limits=limits) as running, connected(running) as client:
        client.send(head(running, "GET /ping HTTP/1.1"))
        assert (await client.answer())[0] == 200
        assert await client.closed() == b""


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/audio/transcriptions?model=good"])
async def test_body_that_trickles_is_given_up(
    make_gateway: MakeGateway, tmp_path: Path, path: str
) -> None:
    limits = {"body_timeout": "300ms"}
    model = fake_model(tmp_path)
    model["mmproj"] = model["params"]["model"]  # it takes sounds
    async with make_gateway({"good": model}, limits=limits) as running:
        async with connected(running) as client:
            lines = ("Content-Length: 1000", "Content-Type: multipart/form-data; boundary=x")
            client.send(head(running, f"POST {path} HTTP/1.1", *lines))
            loop = asyncio.get_running_loop()

            def more() -> None:
                if not client.writer.is_closing():
                    client.send(b" ")
                    loop.call_later(0.05, more)

            more()
            assert await client.error() == (408, "request_timeout")
            await client.closed()
        await still_serves(running)


async def test_a_long_body_that_makes_progress_is_waited_for(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    limits = {"body_timeout": "200ms"}
    async with (
        make_gateway({"good": fake_model(tmp_path)}, limits=limits) as running,
        connected(running) as client,
    ):
        pieces = 8
        body = CHAT + b" " * (pieces * 32 * 1024 - len(CHAT))
        client.send(post(running, body)[: -len(body)])
        for number in range(pieces):  # 0.8 s in all, four times the limit
            client.send(body[number * 32 * 1024 : (number + 1) * 32 * 1024])
            await asyncio.sleep(0.1)
        assert (await client.answer())[0] == 200


async def test_a_model_that_loads_is_no_slow_client(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    limits = {"header_timeout": "200ms", "body_timeout": "200ms", "keepalive": "200ms"}
    async with (
        make_gateway({"good": fake_model(tmp_path, load_time=1)}, limits=limits) as running,
        connected(running) as client,
    ):
        client.send(post(running, CHAT))
        assert (await client.answer())[0] == 200


async def test_connections_are_limited_in_all(make_gateway: MakeGateway, tmp_path: Path) -> None:
    limits = {"connections": 3}
    async with make_gateway({"good": fake_model(tmp_path)}, limits=limits) as running:
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connected(running)) for _ in range(3)]
            for client in clients:
                client.send(head(running, "GET /ping HTTP/1.1"))
                assert (await client.answer())[0] == 200
            async with connected(running) as client:
                assert await client.error() == (503, "too_many_connections")
                assert await client.closed() == b""
            for client in clients:  # those that were there are not harmed
                client.send(head(running, "GET /ping HTTP/1.1"))
                assert (await client.answer())[0] == 200
            # Whoever owns the machine still gets in.
            reader, writer = await asyncio.open_unix_connection(
                running.gateway.runtime.control_socket
            )
            writer.write(b"GET /admin/status HTTP/1.1\r\nHost: gateway\r\n\r\n")
            assert (await Client(reader, writer).answer())[0] == 200
            writer.close()
            await writer.wait_closed()
        await counted(running, 0)
        await still_serves(running)


@pytest.mark.parametrize("tls", [False, True])
async def test_connections_of_one_address_are_limited(
    make_gateway: MakeGateway, tmp_path: Path, tls: bool
) -> None:
    settings: dict[str, Any] = {"limits": {"connections_per_address": 2}}
    options: dict[str, Any] = {}
    if tls:
        settings["tls"], options["ssl"] = with_tls(tmp_path)
    models = {"good": fake_model(tmp_path)}
    async with make_gateway(models, **settings) as running, contextlib.AsyncExitStack() as stack:

        async def come(address: str) -> Client:
            here = connected(running, local_addr=(address, 0), **options)
            return await stack.enter_async_context(here)

        async def pong(client: Client) -> None:
            client.send(head(running, "GET /ping HTTP/1.1"))
            assert (await client.answer())[0] == 200

        first, second = await come("127.0.0.2"), await come("127.0.0.2")
        for client in (first, second):
            await pong(client)
        refused = await come("127.0.0.2")
        assert await refused.error() == (429, "too_many_connections")
        assert await refused.closed() == b""
        await pong(await come("127.0.0.3"))
        for _ in range(4):  # this machine's own programs
            await pong(await come("127.0.0.1"))
        for client in (first, second):  # those that were there are not harmed
            await pong(client)
        first.writer.close()
        await counted(running, 6)
        await pong(await come("127.0.0.2"))


async def test_ipv6_addresses_of_a_64_count_as_one(make_gateway: MakeGateway) -> None:
    limits = {"connections_per_address": 2}
    async with make_gateway({}, limits=limits) as running:
        connections = running.gateway.connections
        six = [
            connections.count_or_refuse((f"2001:db8::{n}", 1, 0, 0))[1] is None for n in range(1, 4)
        ]
        assert six == [True, True, False], "a /64 is one customer"
        assert connections.count_or_refuse(("2001:db8:0:1::1", 1, 0, 0))[1] is None
        assert [connections.count_or_refuse(("::1", 1, 0, 0))[1] for _ in range(3)] == [None] * 3


async def test_handshakes_that_never_end_are_connections(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    tls, trusting = with_tls(tmp_path)
    limits = {"connections": 3, "connections_per_address": 2, "handshake_timeout": "60s"}
    models = {"good": fake_model(tmp_path)}
    async with make_gateway(models, limits=limits, tls=tls) as running:
        async with contextlib.AsyncExitStack() as stack:
            for start in (b"", b"\x16\x03\x01\x02\x00\x01\x00"):
                silent = connected(running, local_addr=("127.0.0.2", 0))
                (await stack.enter_async_context(silent)).send(start)
            await counted(running, 2)
            async with connected(running, local_addr=("127.0.0.2", 0), ssl=trusting) as client:
                assert await client.error() == (429, "too_many_connections")
            await stack.enter_async_context(connected(running))
            await counted(running, 3)
            async with connected(running, ssl=trusting) as client:
                assert await client.error() == (503, "too_many_connections")
        await counted(running, 0)
        await still_serves(running, ssl=trusting)


async def test_handshakes_that_never_end_are_ended(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    tls, trusting = with_tls(tmp_path)
    limits = {"handshake_timeout": "1s"}
    models = {"good": fake_model(tmp_path)}
    async with make_gateway(models, limits=limits, tls=tls) as running:
        async with contextlib.AsyncExitStack() as stack:
            clients = []
            for start in (b"", b"\x16\x03\x01\x02\x00\x01\x00"):
                client = await stack.enter_async_context(connected(running))
                client.send(start)
                clients.append(client)
            for client in clients:
                assert b"HTTP" not in await client.closed()
        await counted(running, 0)
        await still_serves(running, ssl=trusting)


async def test_a_crowd_is_refused_without_a_handshake(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    tls, trusting = with_tls(tmp_path)
    limits = {"connections": 1, "handshake_timeout": "60s"}
    async with make_gateway({}, limits=limits, tls=tls) as running:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(30):
                await stack.enter_async_context(connected(running))
            client = await stack.enter_async_context(connected(running))
            assert await client.closed() == b""
            assert running.gateway.connections.count == 1
        await counted(running, 0)
        async with connected(running, ssl=trusting) as client:
            client.send(head(running, "GET /ping HTTP/1.1"))
            assert (await client.answer())[0] == 200


async def test_connections_of_a_proxy_in_front_are_not_limited(make_gateway: MakeGateway) -> None:
    settings = {"limits": {"connections_per_address": 1}, "trusted_proxies": ["10.0.0.0/8"]}
    async with make_gateway({}, **settings) as running:
        connections = running.gateway.connections
        assert [connections.count_or_refuse(("10.1.2.3", 1))[1] for _ in range(3)] == [None] * 3


# --- answers that nobody reads -------------------------------------------------------------


async def test_stream_that_nobody_reads_is_cut_off(
    make_gateway: MakeGateway, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    models = {"good": fake_model(tmp_path, chunks=1_000_000)}
    async with make_gateway(models, limits={"send_timeout": "500ms"}) as running:
        body = CHAT[:-1] + b', "stream": true}'
        with small(running) as taking:
            taking.settimeout(20)
            taking.sendall(post(running, body))
            async with asyncio.timeout(20):
                while "cut off" not in caplog.text or running.gateway.scheduler.in_flight:
                    await asyncio.sleep(0.01)
            await counted(running, 0)
            got = b""
            with contextlib.suppress(ConnectionError):
                while data := await asyncio.to_thread(taking.recv, 1 << 20):
                    got += data
            assert got.startswith(b"HTTP/1.1 200 ")
            assert b"0\r\n\r\n" not in got[-5:], "it looks complete"


@pytest.mark.parametrize("send_timeout", ["1ms", "1h", "365d"])
async def test_any_patience_is_one_the_kernel_can_have(
    make_gateway: MakeGateway, send_timeout: str
) -> None:
    async with (
        make_gateway({}, limits={"send_timeout": send_timeout}) as running,
        connected(running) as client,
    ):
        client.send(head(running, "GET /ping HTTP/1.1"))
        assert (await client.answer())[0] == 200


async def test_a_slow_reader_is_not_a_dead_one(make_gateway: MakeGateway, tmp_path: Path) -> None:
    # More than the kernel holds for its client (4 MiB by default), whoever is fast or slow.
    models = {"good": fake_model(tmp_path, chunks=60_000)}
    async with make_gateway(models, limits={"send_timeout": "5s"}) as running:
        body = CHAT[:-1] + b', "stream": true}'
        with small(running) as taking:
            taking.settimeout(20)
            taking.sendall(post(running, body))
            got = b""
            slowly = 0
            async with asyncio.timeout(30):
                # Six seconds in which it is waited for: longer than it may rest.
                while slowly < 60:
                    got += await asyncio.to_thread(taking.recv, 4096)
                    await asyncio.sleep(0.1)
                    slowly += running.gateway.connections.unread > 0
            taking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            while data := await asyncio.to_thread(taking.recv, 1 << 20):
                got += data
                if data.endswith(b"0\r\n\r\n"):
                    break
        assert got.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


async def test_client_that_reads_no_answers_is_cut_off(make_gateway: MakeGateway) -> None:
    async with make_gateway({}, limits={"send_timeout": "500ms"}) as running:
        with small(running) as taking:
            taking.setblocking(False)
            request = b"GET /%b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % (b"x" * 4000)
            loop = asyncio.get_running_loop()
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(20):
                    while True:  # until it is no longer read, and then cut off
                        await loop.sock_sendall(taking, request * 16)
        await counted(running, 0)
