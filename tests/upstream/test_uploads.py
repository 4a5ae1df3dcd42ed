"""Bodies that go up as they come, and back-pressure both ways."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.tasks import spawn
from gateway.upstream import UploadFailed, UpstreamRequest
from tests.pools import GET, OK, Keeping, MakePool

TOTAL = 8_000_000


@pytest.mark.parametrize("length", [None, 100_003])
async def test_streamed_body_arrives_whole_on_a_connection_of_its_own(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any, length: int | None
) -> None:
    keeping = Keeping(backend)
    pool = pool_of(await backend.serve(keeping), max_connections=1)
    await get(pool)

    async def body() -> AsyncIterator[bytes]:
        yield b"a"
        yield b""
        for _ in range(10):
            await asyncio.sleep(0)
            yield b"b" * 10_000
        yield b"zz"

    sink = recorder()
    await pool.send(UpstreamRequest("POST", "/", body=body(), body_length=length), sink)
    assert await sink.answer() == (200, b"ok")
    number, head, got = keeping.requests[1]
    assert got == b"a" + b"b" * 100_000 + b"zz"
    assert number == 1  # a connection of its own: it could not be sent again
    assert (b"chunked" in head) == (length is None)
    await get(pool)
    assert keeping.requests[2][0] == 1


@pytest.mark.parametrize("length", [None, TOTAL])
async def test_streamed_body_is_not_collected(
    backend: Any, pool_of: MakePool, recorder: Any, length: int | None
) -> None:
    go = asyncio.Event()
    got = bytearray()

    async def handler(reader: Any, writer: Any, number: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go.wait()
        while len(got) < TOTAL if length else not got.endswith(b"\r\n0\r\n\r\n"):
            got.extend(await reader.read(100_000))
        writer.write(OK)
        await reader.read()

    taken = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal taken
        while taken < TOTAL:
            taken += 10_000
            yield b"x" * 10_000

    pool = pool_of(await backend.serve(handler), max_connections=1)
    sink = recorder()
    await pool.send(UpstreamRequest("POST", "/", body=body(), body_length=length), sink)
    last = -1
    while taken != last or not taken:  # until the reader's and the writer's buffers are full
        last = taken
        for _ in range(20):
            await asyncio.sleep(0)
    assert taken < TOTAL / 4
    go.set()
    assert await sink.answer() == (200, b"ok")
    assert got.count(b"x") == TOTAL


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("closes", [False, True])
async def test_answer_before_the_upload_is_over_is_taken(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any, streamed: bool, closes: bool
) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if number % 2:
            writer.write(OK)
            await reader.read()
            return
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        if not closes:
            await writer.drain()
            await reader.read()

    finished = asyncio.Queue[None]()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 10_000
        finally:
            finished.put_nowait(None)

    pool = pool_of(await backend.serve(handler), max_connections=1)
    for _ in range(20):
        sink = recorder()
        body = endless() if streamed else b"x" * 9_000_000
        await pool.send(UpstreamRequest("POST", "/", body=body), sink)
        assert await sink.answer() == (413, b"big")
        if streamed:
            await finished.get()
        assert await get(pool) == (200, b"ok")
        pool.abort_all()


async def test_upload_whose_source_fails_is_a_400(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any, subtests: pytest.Subtests
) -> None:
    closed = asyncio.Queue[int]()

    async def handler(reader: Any, writer: Any, number: int) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ValueError):
            await backend.request(reader)
            writer.write(OK)
            await reader.read()
        closed.put_nowait(number)

    async def broken() -> AsyncIterator[bytes]:
        yield b"some"
        raise OSError("the client is gone")

    async def pieces() -> AsyncIterator[bytes]:
        yield b"four"

    pool = pool_of(await backend.serve(handler), max_connections=1)
    for body, length, message in [
        (broken(), None, "the client is gone"),
        (pieces(), 5, "shorter"),
        (pieces(), 3, "longer"),
    ]:
        with subtests.test(f"{body!r:.80}"):
            sink = recorder()
            await pool.send(UpstreamRequest("POST", "/", body=body, body_length=length), sink)
            with pytest.raises(UploadFailed) as caught:
                await sink.answer()
            assert caught.value.status == 400
            assert message in str(caught.value.__cause__)
            await closed.get()
    assert await get(pool) == (200, b"ok")


async def test_aborted_upload_ends_its_source(
    backend: Any, pool_of: MakePool, recorder: Any
) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        await reader.read()

    ended = asyncio.Event()
    begun = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        try:
            yield b"x"
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    pool = pool_of(await backend.serve(handler))
    sink = recorder()
    exchange = await pool.send(UpstreamRequest("POST", "/", body=stuck()), sink)
    await begun.wait()
    exchange.abort()
    await ended.wait()
    assert not sink.ends


async def test_pausing_stops_the_backend(backend: Any, pool_of: MakePool, recorder: Any) -> None:
    total = 4_000_000
    sent = 0
    stuck = asyncio.Event()

    async def handler(reader: Any, writer: Any, number: int) -> None:
        nonlocal sent
        await backend.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            writer.write(b"x" * 10_000)
            sent += 10_000
            drain = spawn(writer.drain(), name="drain")
            if not (await asyncio.wait([drain], timeout=0.3))[0]:
                stuck.set()
                await drain
        await reader.read()

    pool = pool_of(await backend.serve(handler), max_connections=1)
    sink = recorder()
    heard = sink.on_body

    def pause(data: bytes) -> None:
        heard(data)
        if not stuck.is_set():
            exchange.pause()
            exchange.pause()

    sink.on_body = pause
    exchange = await pool.send(GET, sink)
    await stuck.wait()
    assert len(sink.body) <= 256 * 1024
    assert sent < total
    exchange.resume()
    exchange.resume()
    assert (await sink.answer())[0] == 200
    assert len(sink.body) == total
