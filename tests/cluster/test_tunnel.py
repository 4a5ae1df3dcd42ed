"""The way from a llama-server to an rpc-server on another node."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from gateway.cluster.tunnel import Tunnel, _is_ours
from gateway.secret import Secret
from gateway.upstream import TcpAddress
from tests.cluster.conftest import Attic


class Ways:
    """Tunnels to a node, and why they have broken."""

    def __init__(self, attic: Attic) -> None:
        self.attic = attic
        self.broken = asyncio.Event()
        self.tunnels: list[Tunnel] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def open(self, address: TcpAddress) -> Tunnel:
        tunnel = Tunnel("attic", address, self.broken.set)
        self.tunnels.append(tunnel)
        await tunnel.open()
        return tunnel

    async def dial(self, tunnel: Tunnel) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", tunnel.port)
        self.writers.append(writer)
        return reader, writer

    async def close(self) -> None:
        for writer in self.writers:
            writer.close()
        for tunnel in self.tunnels:
            await tunnel.close()


@pytest.fixture
async def ways(attic: Attic) -> AsyncIterator[Ways]:
    made = Ways(attic)
    yield made
    await made.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def test_bytes_go_both_ways(attic: Attic, ways: Ways) -> None:
    tunnel = await ways.open(attic.address(await attic.serve(echo)))
    reader, writer = await ways.dial(tunnel)
    sent = os.urandom(3_000_000)

    async def send() -> None:
        writer.write(sent)
        await writer.drain()

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(send())
        got = group.create_task(reader.readexactly(len(sent)))
    assert got.result() == sent
    assert tunnel.broken is None


async def test_who_reads_nothing_is_sent_only_so_much(attic: Attic, ways: Ways) -> None:
    taken, go_on = 0, asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        await go_on.wait()
        while data := await reader.read(65536):
            taken += len(data)
        writer.close()

    tunnel = await ways.open(attic.address(await attic.serve(slow)))
    reader, writer = await ways.dial(tunnel)
    writer.transport.set_write_buffer_limits(0)
    sent = 0

    async def send() -> None:
        nonlocal sent
        while sent < 500_000_000:
            writer.write(bytes(1_000_000))
            sent += 1_000_000
            await writer.drain()

    with pytest.raises(TimeoutError):  # it stops for good, after what the system's buffers take
        await asyncio.wait_for(send(), 2)
    assert sent < 100_000_000
    go_on.set()
    writer.write_eof()
    async with asyncio.timeout(20):
        await reader.read()


async def test_one_that_hangs_up_breaks_nothing(attic: Attic, ways: Ways) -> None:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()

    door = await attic.serve(serve)
    tunnel = await ways.open(attic.address(door))
    for _ in range(3):
        ended.clear()
        _, writer = await ways.dial(tunnel)
        writer.write(b"hello")
        await writer.drain()
        writer.close()
        async with asyncio.timeout(5):
            await ended.wait()
    assert tunnel.broken is None
    assert not ways.broken.is_set()


async def test_the_end_of_the_other_side_breaks_it(attic: Attic, ways: Ways) -> None:
    door = await attic.serve(echo)
    tunnel = await ways.open(attic.address(door))
    reader, writer = await ways.dial(tunnel)
    writer.write(b"x")
    assert await reader.readexactly(1) == b"x"
    door.close()
    async with asyncio.timeout(5):
        await ways.broken.wait()
        assert await reader.read() == b""
    assert tunnel.broken


@pytest.mark.parametrize("why", ["wrong key", "ended key", "nobody listens"])
async def test_no_way_breaks_it(attic: Attic, ways: Ways, why: str) -> None:
    door = await attic.serve(echo)
    address = attic.address(door)
    if why == "wrong key":
        address = address._replace(key=Secret("0" * 64))
    elif why == "ended key":
        door.close()
    else:
        await attic.front.close()
    tunnel = await ways.open(address)
    reader, writer = await ways.dial(tunnel)
    writer.write(b"hello")
    async with asyncio.timeout(5):
        await ways.broken.wait()
        assert await reader.read() == b""
    expected = "Connect call failed|refused" if why == "nobody listens" else "no such key"
    assert tunnel.broken is not None
    assert any(text in tunnel.broken for text in expected.split("|"))


async def test_only_connections_of_the_same_user_are_let_in(attic: Attic, ways: Ways) -> None:
    tunnel = await ways.open(attic.address(await attic.serve(echo)))
    reader, writer = await ways.dial(tunnel)
    writer.write(b"x")
    await reader.readexactly(1)
    port = writer.get_extra_info("sockname")[1]
    assert _is_ours(port, tunnel.port)


async def test_a_door_without_a_server_yet_lets_nobody_in(attic: Attic, ways: Ways) -> None:
    tunnel = await ways.open(attic.address(attic.front.add()))
    await ways.dial(tunnel)
    async with asyncio.timeout(5):
        await ways.broken.wait()
    assert "takes no new connections" in (tunnel.broken or "")
