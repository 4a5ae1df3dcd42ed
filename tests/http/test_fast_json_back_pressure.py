"""The fast JSON protocol: nothing piles up for a client that doesn't read."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

from tests.harness import MakeGateway, eventually, fake_model
from tests.http.fast_json import (
    STREAM,
    listener_of,
    narrow,
    nothing_is_left,
    only_connection,
)
from tests.wire import CHAT, connected, counted, post, small, with_tls

# --- who does not read, and who sends too much ---------------------------------------------


async def test_stream_that_is_not_read_waits(make_gateway: MakeGateway, tmp_path: Path) -> None:
    """At most 256 KiB of it are here, whoever serves it, and others are not kept waiting."""
    models = {"good": fake_model(tmp_path, chunks=100_000), "other": fake_model(tmp_path)}
    async with make_gateway(models) as running:
        connections = running.gateway.connections
        loop = asyncio.get_running_loop()
        for target in (b"/v1/chat/completions ", b"/v1/chat/completions?x=1 "):
            with small(running) as taking:
                transport = (await narrow(running, taking)).transport
                request = post(running, STREAM).replace(b"/v1/chat/completions ", target)
                await loop.sock_sendall(taking, request)
                await eventually(lambda: connections.unread > 0)
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
            await eventually(lambda: nothing_is_left(running))


async def test_stream_that_is_not_read_waits_with_tls(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    tls, trusting = with_tls(tmp_path)
    async with make_gateway({"good": fake_model(tmp_path, chunks=100_000)}, tls=tls) as running:
        connections = running.gateway.connections
        async with connected(running, ssl=trusting) as client:
            await eventually(lambda: len(listener_of(running).open) == 1)
            front = only_connection(running)
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            kernel = front.transport.get_extra_info("socket")
            kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            client.send(post(running, STREAM))
            await eventually(lambda: connections.unread > 0)
            held = front.transport.get_write_buffer_size()
            assert 0 < held <= 256 * 1024
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            async with asyncio.timeout(20):  # it goes on when it is read
                await client.reader.readexactly(2 * held)
        await eventually(lambda: nothing_is_left(running))


async def test_answers_that_nobody_reads_do_not_pile_up(make_gateway: MakeGateway) -> None:
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


async def test_requests_behind_one_another_do_not_pile_up(make_gateway: MakeGateway) -> None:
    async with make_gateway({}) as running, connected(running) as client:
        count = 3000
        refused = post(running, b"{" + b" " * 1000).replace(b"Bearer llm", b"Bearer x")
        client.send(refused * count)
        await eventually(lambda: len(listener_of(running).open) == 1)
        front = only_connection(running)
        held = 0
        for _ in range(count):
            assert (await client.answer())[0] in (401, 429)
            held = max(held, front.received)
        assert 0 < held < 1024 * 1024 < len(refused) * count
        await eventually(lambda: front.received == 0)
        client.send(post(running, b"{"))  # and it is still read
        assert (await client.answer())[0] == 400
