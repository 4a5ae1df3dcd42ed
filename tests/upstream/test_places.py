"""Which connection a request gets, and when: reuse, bounds, waiting in turn."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from gateway.tasks import spawn
from gateway.upstream import Exchange, UpstreamRequest
from tests.pools import GET, OK, Keeping, MakePool


async def test_last_used_connection_comes_first_and_idle_ones_expire(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any
) -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    served: list[int] = []
    closed: asyncio.Queue[int] = asyncio.Queue()

    async def handler(reader: Any, writer: Any, number: int) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                await backend.request(reader)
                served.append(number)
                await gates[number].wait()
                writer.write(OK)
        closed.put_nowait(number)

    pool = pool_of(await backend.serve(handler), max_idle_seconds=0.2)
    sinks = [recorder(), recorder()]
    for sink in sinks:
        # The deadline of a head, far away, must not put off that of an idle connection.
        await pool.send(UpstreamRequest("GET", "/", head_timeout=60), sink)
    for number in (1, 0):
        gates[number].set()
        await sinks[number].ended.wait()
    for _ in range(3):
        await get(pool)
    assert served[2:] == [0, 0, 0]
    assert [await closed.get(), await closed.get()] == [1, 0]  # longest idle first
    gates.append(gates[0])
    await get(pool)
    assert backend.connections == 3


async def test_connections_are_bounded_and_waiters_come_in_turn(
    backend: Any, pool_of: MakePool, recorder: Any
) -> None:
    order: list[bytes] = []
    arrived: asyncio.Queue[None] = asyncio.Queue()
    gate = asyncio.Semaphore(0)

    async def handler(reader: Any, writer: Any, number: int) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head, _ = await backend.request(reader)
                order.append(head.split()[1])
                arrived.put_nowait(None)
                await gate.acquire()
                writer.write(OK)

    pool = pool_of(await backend.serve(handler), max_connections=2)

    async def ask(target: str) -> None:
        sink = recorder()
        await pool.send(UpstreamRequest("GET", target), sink)
        await sink.answer()

    asked = []
    for i in range(7):
        asked.append(spawn(ask(f"/{i}"), name="test"))
        await asyncio.sleep(0)
    await arrived.get()
    await arrived.get()
    assert sorted(order) == [b"/0", b"/1"]
    asked[3].cancel()
    for _ in range(4):
        gate.release()
        await arrived.get()
    gate.release()
    gate.release()
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(r, asyncio.CancelledError) for r in results] == [i == 3 for i in range(7)]
    assert order[2:] == [b"/2", b"/4", b"/5", b"/6"]
    assert backend.connections == 2


async def test_a_place_given_to_one_who_is_just_cancelled_is_not_lost(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any
) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        if number:
            writer.write(OK)
        await reader.read()

    pool = pool_of(await backend.serve(handler), max_connections=1)
    holder = await pool.send(GET, recorder())
    waiter = spawn(pool.send(GET, recorder()), name="test")
    await asyncio.sleep(0)
    holder.abort()  # hands the place over
    waiter.cancel()  # before its taker ran
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert await get(pool) == (200, b"ok")


async def test_connection_closed_while_idle_is_not_used(
    backend: Any, pool_of: MakePool, get: Any
) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        writer.write(OK)

    pool = pool_of(await backend.serve(handler), max_connections=1)
    for i in range(3):
        assert await get(pool) == (200, b"ok")
        assert backend.connections == i + 1


async def test_connection_with_unasked_bytes_is_not_used(
    backend: Any, pool_of: MakePool, get: Any
) -> None:
    more = asyncio.Event()
    closed = asyncio.Event()

    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        writer.write(OK)
        if number == 0:
            await more.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
        await reader.read()
        closed.set()

    pool = pool_of(await backend.serve(handler), max_connections=1)
    await get(pool)
    more.set()
    await closed.wait()
    assert await get(pool) == (200, b"ok")
    assert backend.connections == 2


async def test_connection_of_a_paused_exchange_can_be_reused(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any
) -> None:
    keeping = Keeping(backend)
    pool = pool_of(await backend.serve(keeping), max_connections=1)
    sink = recorder()
    sink.on_head = lambda head: exchange.pause()
    sink.on_body = lambda data: None
    sink.on_end = sink.ended.set
    exchange: Exchange = await pool.send(GET, sink)
    await sink.ended.wait()
    exchange.pause()  # too late, and without effect on whoever has the connection now
    assert await get(pool) == (200, b"ok")
    assert backend.connections == 1
