"""How exchanges end: by their answer, by a loss, an abort, a sink that raises, with their pool."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from typing import Any

import pytest

from gateway.tasks import spawn
from gateway.upstream import ConnectFailed, ConnectionLost, Exchange, SinkFailed, UpstreamRequest
from tests.pools import GET, OK, MakePool, reset


@pytest.mark.parametrize(
    "part", [b"Content-Length: 10\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"]
)
async def test_lost_in_the_middle_is_never_a_clean_end(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any, part: bytes
) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + part if number == 0 else OK)

    pool = pool_of(await backend.serve(handler), max_connections=1)
    sink = recorder()
    await pool.send(GET, sink)
    with pytest.raises(ConnectionLost, match="in the middle of its answer") as caught:
        await sink.answer()
    assert not caught.value.before_head
    assert sink.body == b"half"
    assert await get(pool) == (200, b"ok")


async def test_a_reset_is_no_end_of_a_body_that_ends_with_its_connection(
    backend: Any, pool_of: MakePool, recorder: Any
) -> None:
    go = asyncio.Event()

    async def handler(reader: Any, writer: Any, number: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nhalf")
        await go.wait()
        reset(writer)

    pool = pool_of(await backend.serve(handler, tcp=True))
    sink = recorder()
    await pool.send(GET, sink)
    await sink.fed.wait()
    go.set()
    with pytest.raises(ConnectionLost):
        await sink.answer()


@pytest.mark.parametrize("phase", ["before head", "in body", "twice", "after end"])
async def test_aborting_closes_the_connection_and_nothing_more_is_heard(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any, phase: str
) -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        asked.set()
        if number == 1 or phase == "after end":
            writer.write(OK)
        elif phase == "in body":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(100):
                assert phase == "after end", data
                writer.write(OK)
        closed.set()

    pool = pool_of(await backend.serve(handler), max_connections=1)
    sink = recorder()
    exchange = await pool.send(GET, sink)
    await asked.wait()
    if phase == "in body":
        await sink.fed.wait()
    elif phase == "after end":
        await sink.ended.wait()
    exchange.abort()
    if phase == "twice":
        exchange.abort()
    if phase == "after end":
        assert await get(pool) == (200, b"ok")
        assert backend.connections == 1  # it was no more that exchange's to close
    else:
        await closed.wait()
        assert not sink.ends
        assert await get(pool) == (200, b"ok")
    exchange.pause()
    exchange.resume()
    exchange.abort()


async def test_abort_from_a_callback_stops_what_was_read_already(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any
) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        if number < 2:
            head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            writer.write(head + b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n")  # one read, and one piece
        else:
            writer.write(OK)
        await reader.read()

    pool = pool_of(await backend.serve(handler), max_connections=1)
    for phase in ("on_head", "on_body"):
        sink = recorder()
        done = asyncio.Event()
        heard = getattr(sink, phase)

        exchanges: list[Exchange] = []

        def stop(what: Any, heard: Any = heard, done: Any = done, own: Any = exchanges) -> None:
            heard(what)
            own[0].abort()
            done.set()

        setattr(sink, phase, stop)
        exchanges.append(await pool.send(GET, sink))
        await done.wait()
        assert sink.body == (b"ab" if phase == "on_body" else b"")
        assert not sink.ends
    assert await get(pool) == (200, b"ok")


@pytest.mark.parametrize("phase", ["on_head", "on_body", "on_end", "on_error"])
async def test_a_sink_that_raises_harms_only_itself(
    backend: Any,
    pool_of: MakePool,
    recorder: Any,
    get: Any,
    phase: str,
) -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context))

    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        if phase == "on_error" and number == 0:
            return
        writer.write(OK)
        await reader.read()

    pool = pool_of(await backend.serve(handler), max_connections=1)
    sink = recorder()
    raised = asyncio.Event()

    def fail(*_: Any) -> None:
        raised.set()
        raise RuntimeError("bug")

    setattr(sink, phase, fail)
    await pool.send(GET, sink)
    await raised.wait()
    assert len(reports) == 1
    assert str(reports[0]["exception"]) == "bug"
    if phase in ("on_head", "on_body"):
        with pytest.raises(SinkFailed) as caught:
            await sink.answer()
        assert caught.value.status == 500
        pool.abort_all()
    elif phase == "on_end":
        pool.abort_all()
    assert await get(pool) == (200, b"ok")
    assert len(reports) == 1


@pytest.mark.parametrize("size", [100, 100_000])
async def test_request_body_is_let_go_when_the_answer_begins(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any, size: int
) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        for answer in (OK, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"):
            await backend.request(reader)
            writer.write(answer)
        await reader.read()

    pool = pool_of(await backend.serve(handler), max_connections=1)
    await get(pool)
    sink = recorder()
    body = b"b" * size
    before = sys.getrefcount(body)
    gc.disable()
    try:
        exchange = await pool.send(UpstreamRequest("POST", "/", body=body), sink)
        await sink.fed.wait()
        assert sys.getrefcount(body) == before
        sinks = sys.getrefcount(sink)
        exchange.abort()
        assert sys.getrefcount(sink) < sinks
    finally:
        gc.enable()


async def test_ending_a_pool_ends_every_exchange_with_connection_lost(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any
) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head, _ = await backend.request(reader)
                if b"half" in head:
                    writer.write(OK[:-1])
                elif b"silent" not in head:
                    writer.write(OK)

    pool = pool_of(await backend.serve(handler), max_connections=3)
    for end in (pool.abort_all, pool.close):
        silent, half, waits = recorder(), recorder(), recorder()
        await pool.send(UpstreamRequest("GET", "/silent"), silent)
        await pool.send(UpstreamRequest("GET", "/half"), half)
        await half.fed.wait()
        await get(pool)  # leaves an idle connection
        if end == pool.close:
            await pool.send(UpstreamRequest("GET", "/silent"), recorder())
            waiting = spawn(pool.send(GET, waits), name="test")
            await asyncio.sleep(0)
        if (closing := end()) is not None:
            await closing
        for sink, before_head in ((silent, True), (half, False)):
            with pytest.raises(ConnectionLost, match="llama was shut down") as caught:
                await sink.answer()
            assert caught.value.before_head is before_head
    with pytest.raises(ConnectFailed, match="shut down"):
        await waiting
    with pytest.raises(ConnectFailed, match="shut down"):
        await get(pool)
    with pytest.raises(ConnectFailed, match="shut down"):
        await pool.fetch(GET, timeout=1)
    await pool.close()  # again, and at once
