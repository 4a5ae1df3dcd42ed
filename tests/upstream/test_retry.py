"""Which requests are sent again, and how often."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from gateway.backends.fleet import Unreachable, UnreachableInTime
from gateway.upstream import (
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    ProtocolError,
    UnixAddress,
    UpstreamError,
    UpstreamRequest,
    may_retry,
)
from tests.pools import GET, OK, MakePool, reset


@pytest.mark.parametrize("way", ["eof", "reset"])
@pytest.mark.parametrize("size", [10, 1_000_000])
async def test_request_on_a_stale_connection_is_sent_again_unseen(
    backend: Any, pool_of: MakePool, recorder: Any, way: str, size: int
) -> None:
    got: list[bytes] = []

    async def handler(reader: Any, writer: Any, number: int) -> None:
        got.append((await backend.request(reader))[1])
        writer.write(OK)
        if number == 0:
            await reader.read(5)  # the next request comes, and we go
            if way == "reset":
                reset(writer)
        else:
            await reader.read()

    pool = pool_of(await backend.serve(handler, tcp=True), max_connections=1)
    for body in (b"first", b"s" * size):
        sink = recorder()
        await pool.send(UpstreamRequest("POST", "/", body=body), sink)
        assert await sink.answer() == (200, b"ok")
    assert backend.connections == 2
    assert got == [b"first", b"s" * size]


async def test_request_is_sent_again_only_once(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any
) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        if number != 1:
            writer.write(OK)
            await backend.request(reader)
        # and away

    pool = pool_of(await backend.serve(handler), max_connections=1)
    await get(pool)
    sink = recorder()
    exchange = await pool.send(GET, sink)
    with pytest.raises(ConnectionLost, match="llama went away before it answered") as caught:
        await sink.answer()
    assert caught.value.before_head
    assert caught.value.status == 502
    assert not exchange.answered
    assert backend.connections == 2
    assert await get(pool) == (200, b"ok")


async def test_request_is_not_sent_again_after_a_byte_of_answer(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any
) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        writer.write(OK)
        await backend.request(reader)
        writer.write(b"H")
        await writer.drain()

    pool = pool_of(await backend.serve(handler), max_connections=1)
    await get(pool)
    sink = recorder()
    exchange = await pool.send(GET, sink)
    with pytest.raises(ConnectionLost) as caught:
        await sink.answer()
    assert caught.value.before_head
    assert exchange.answered
    assert backend.connections == 1


async def test_sending_again_where_nobody_listens_any_more_fails_at_once(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any
) -> None:
    address: UnixAddress

    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        writer.write(OK)
        await backend.request(reader)
        os.unlink(address.path)  # noqa: PTH108

    address = await backend.serve(handler)
    pool = pool_of(address, max_connections=1)
    await get(pool)
    sink = recorder()
    await pool.send(GET, sink)
    with pytest.raises(ConnectFailed):
        await sink.answer()
    with pytest.raises(ConnectFailed):
        await get(pool)  # at once: the place is free


@pytest.mark.parametrize("how", ["abort", "abort_all", "close"])
async def test_exchange_that_connects_again_can_be_ended(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any, full_backlog: Any, how: str
) -> None:
    gone = asyncio.Event()

    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        writer.write(OK)
        await backend.request(reader)
        os.replace(full_backlog[0].path, address.path)  # noqa: PTH105
        gone.set()

    address = await backend.serve(handler)
    pool = pool_of(address, max_connections=1, connect_timeout=0.1)
    await get(pool)
    sink = recorder()
    exchange = await pool.send(GET, sink)
    await gone.wait()
    while not pool.reconnecting:  # a matter of a few turns of the loop
        await asyncio.sleep(0)
    if how == "abort":
        exchange.abort()
    elif how == "abort_all":
        pool.abort_all()
    else:
        await pool.close()
    if how == "abort":
        assert not sink.ends
    else:
        with pytest.raises(ConnectionLost, match="shut down"):
            await sink.answer()
    with pytest.raises(ConnectFailed if how == "close" else ConnectTimeout):
        await get(pool)


async def test_servers_that_close_after_100_requests_are_never_noticed(
    backend: Any, pool_of: MakePool, get: Any
) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        # Without `Connection: close`, and with requests already under way: the worst case.
        for _ in range(100):
            await backend.request(reader)
            writer.write(OK)

    pool = pool_of(await backend.serve(handler, backlog=5), max_connections=16)

    async def client() -> None:
        for _ in range(150):
            assert await get(pool) == (200, b"ok")

    await asyncio.gather(*(client() for _ in range(16)))
    assert backend.connections >= 24


def lost(*, unprocessed: bool = False) -> ConnectionLost:
    return ConnectionLost("it went away", before_head=True, unprocessed=unprocessed)


@pytest.mark.parametrize(
    ("error", "body_at_hand", "repeatable", "may"),
    [
        (ConnectFailed("refused"), True, False, True),
        (ConnectTimeout("too slow"), True, False, True),
        (lost(unprocessed=True), True, False, True),
        (lost(), True, False, False),  # somebody may be at work on it, and charge for it
        (lost(), True, True, True),
        (lost(), False, True, False),
        (ConnectFailed("refused"), False, True, False),
        (ProtocolError("garbage"), True, False, False),
        (Unreachable("all were tried"), True, True, False),
        (UnreachableInTime("all were tried"), True, True, False),
    ],
    ids=lambda value: repr(value) if isinstance(value, UpstreamError) else str(value),
)
def test_only_what_nobody_works_on_may_be_sent_again(
    error: UpstreamError, body_at_hand: bool, repeatable: bool, may: bool
) -> None:
    assert may_retry(error, body_at_hand=body_at_hand, repeatable=repeatable) is may
