"""The front: who gets in, what comes through, and what happens when either end goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

import pytest

from gateway.tasks import spawn
from gateway.upstream import ConnectFailed, UpstreamRequest
from tests.cluster.conftest import Attic
from tests.cluster.servers import Held, answers, closed, echoes, pool_for


async def flooded(writer: asyncio.StreamWriter) -> int:
    """Write until nothing is taken any more, or very much was; returns how much."""
    written = 0
    with contextlib.suppress(TimeoutError):
        while written < 200_000_000:
            writer.write(bytes(1_000_000))
            written += 1_000_000
            async with asyncio.timeout(0.5):
                await writer.drain()
    return written


def transport_of(writer: asyncio.StreamWriter) -> Any:
    """What a writer's transport is, whatever it is said to be: it reads, too."""
    return writer.transport


# --- what comes through ----------------------------------------------------------------------


async def test_a_request_comes_through_and_its_connection_is_used_again(attic: Attic) -> None:
    door = await attic.serve(answers)
    pool = pool_for(attic.address(door))
    for _ in range(3):
        answer = await pool.fetch(UpstreamRequest("GET", "/health"), timeout=5)
        assert (answer.status, answer.body) == (200, b"ok")
        assert (door.connections, door.busy) == (1, 0)
    await pool.close()
    await asyncio.wait_for(door.idle(), 5)
    assert door.connections == 0


async def test_each_door_leads_to_its_own_server(attic: Attic) -> None:
    doors = []
    for name in (b"one", b"two"):

        async def tell(reader: Any, writer: Any, name: bytes = name) -> None:
            await reader.readline()
            writer.write(name)

        doors.append(await attic.serve(tell))
    assert doors[0].key != doors[1].key
    for door, name in zip(doors, (b"one", b"two"), strict=True):
        reader, writer = await attic.dial(door)
        writer.write(b"?\n")
        assert await reader.read() == name


async def test_bytes_come_unchanged_and_in_order(attic: Attic) -> None:
    door = await attic.serve(echoes)
    reader, writer = await attic.dial(door)
    sent = os.urandom(5_000_000)

    async def send() -> None:
        for start in range(0, len(sent), 70_001):
            writer.write(sent[start : start + 70_001])
            await writer.drain()

    sending = spawn(send(), name="test")
    assert await asyncio.wait_for(reader.readexactly(len(sent)), 30) == sent
    await sending


async def test_many_connections_at_once(attic: Attic) -> None:
    door = await attic.serve(echoes, backlog=5)  # as llama-server's own

    async def one(number: int) -> None:
        reader, writer = await attic.dial(door)
        writer.write(b"%d\n" % number)
        assert await reader.readline() == b"%d\n" % number

    await asyncio.wait_for(asyncio.gather(*(one(n) for n in range(200))), 60)
    assert door.connections == 200
    for writer in attic.writers:
        writer.transport.abort()
    await asyncio.wait_for(door.idle(), 10)
    assert door.busy == 0


async def test_a_client_that_reads_nothing_holds_up_the_server(attic: Attic) -> None:
    held = Held()
    door = await attic.serve(held)
    _, writer = await attic.dial(door)
    transport_of(writer).pause_reading()
    _, inner = await held.came.get()
    written = await flooded(inner)
    assert written < 50_000_000  # what sockets and buffers hold
    writer.transport.abort()
    await asyncio.wait_for(door.idle(), 5)


async def test_a_server_that_reads_nothing_holds_up_the_client(attic: Attic) -> None:
    held = Held()
    door = await attic.serve(held, limit=1000)
    _, writer = await attic.dial(door)
    inner, _ = await held.came.get()
    written = await flooded(writer)
    assert written < 50_000_000
    reading = spawn(inner.readexactly(written), name="test")
    await asyncio.wait_for(writer.drain(), 30)  # and it goes on when it reads again
    assert len(await asyncio.wait_for(reading, 30)) == written


async def test_busy_is_who_has_asked_and_heard_nothing(attic: Attic) -> None:
    held = Held()
    door = await attic.serve(held)
    pairs = []
    for _ in range(2):
        reader, writer = await attic.dial(door)
        writer.write(b"question")
        inner_reader, inner = await held.came.get()
        assert await inner_reader.readexactly(8) == b"question"
        pairs.append((reader, writer, inner_reader, inner))
    assert door.busy == 2
    reader, _, _, inner = pairs[0]
    inner.write(b"a")
    assert await reader.readexactly(1) == b"a"
    assert door.busy == 1
    _, writer, inner_reader, _ = pairs[1]
    writer.transport.abort()
    assert await closed(inner_reader)
    assert (door.connections, door.busy) == (1, 0)


# --- the ends --------------------------------------------------------------------------------


async def test_the_server_hears_at_once_that_a_client_has_gone(attic: Attic) -> None:
    held = Held()
    door = await attic.serve(held)
    _, writer = await attic.dial(door)
    inner, _ = await held.came.get()
    writer.transport.abort()
    assert await asyncio.wait_for(closed(inner), 5)
    await asyncio.wait_for(door.idle(), 5)


async def test_all_that_a_server_has_sent_arrives_before_its_end(attic: Attic) -> None:
    """Although the client reads nothing until the server has gone."""
    sent = os.urandom(300_000)

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(sent)

    door = await attic.serve(tell)
    reader, writer = await attic.dial(door)
    writer.write(b"?\n")
    transport_of(writer).pause_reading()
    await asyncio.wait_for(attic.writers[1].wait_closed(), 10)
    transport_of(writer).resume_reading()
    assert await asyncio.wait_for(reader.read(), 10) == sent
    await asyncio.wait_for(door.idle(), 5)


async def test_a_stream_that_breaks_ends_as_broken(attic: Attic) -> None:
    async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await writer.drain()

    door = await attic.serve(breaks)
    pool = pool_for(attic.address(door))
    with pytest.raises(Exception, match="closed"):
        await pool.fetch(UpstreamRequest("GET", "/"), timeout=5)
    await pool.close()


async def test_a_door_that_lets_nobody_in_keeps_who_is_in(attic: Attic) -> None:
    door = await attic.serve(echoes)
    reader, writer = await attic.dial(door)
    door.close_new()
    pool = pool_for(attic.address(door))
    with pytest.raises(ConnectFailed, match="takes no new connections"):
        await pool.fetch(UpstreamRequest("GET", "/"), timeout=5)
    await pool.close()
    writer.write(b"still here\n")
    assert await reader.readline() == b"still here\n"
    idle = spawn(door.idle(), name="test")
    await asyncio.sleep(0)
    assert not idle.done()
    writer.transport.abort()
    await asyncio.wait_for(idle, 5)


async def test_a_closed_door_ends_its_connections_and_no_others(attic: Attic) -> None:
    doors = [await attic.serve(echoes) for _ in range(2)]
    (reader, _), (other, writer) = [await attic.dial(door) for door in doors]
    doors[0].close()
    assert await asyncio.wait_for(closed(reader), 5)
    await asyncio.wait_for(doors[0].idle(), 5)
    writer.write(b"here\n")
    assert await other.readline() == b"here\n"
    pool = pool_for(attic.address(doors[0]))
    with pytest.raises(ConnectFailed, match="no such key"):
        await pool.fetch(UpstreamRequest("GET", "/"), timeout=5)
    await pool.close()


async def test_a_front_that_is_closed_leaves_nothing(attic: Attic) -> None:
    door = await attic.serve(echoes)
    reader, _ = await attic.dial(door)
    outside, _ = await attic.dial()
    await asyncio.wait_for(attic.front.close(), 5)
    assert await asyncio.wait_for(closed(reader), 5)
    assert await asyncio.wait_for(closed(outside), 5)
    assert (door.connections, door.busy) == (0, 0)
    with pytest.raises(OSError, match=r"[Cc]onnect"):
        await attic.dial()
