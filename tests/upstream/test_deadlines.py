"""What a backend has time for, and what is not held against it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.errors import BackendTimeout
from gateway.upstream import HeadTimeout, UpstreamRequest
from tests.pools import OK, Keeping, MakePool


async def test_head_that_does_not_come_in_time_is_a_504(
    backend: Any, pool_of: MakePool, recorder: Any, get: Any
) -> None:
    closed = asyncio.Event()

    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        if number == 0:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
            await reader.read()
            closed.set()
        else:
            writer.write(OK)
            await reader.read()

    pool = pool_of(await backend.serve(handler), max_connections=1)
    sink = recorder()
    await pool.send(UpstreamRequest("GET", "/", head_timeout=0.05), sink)
    with pytest.raises(HeadTimeout, match=r"llama sent no answer within 0\.05 s") as caught:
        await sink.answer()
    assert caught.value.status == 504
    assert isinstance(caught.value, BackendTimeout)
    await closed.wait()
    assert await get(pool) == (200, b"ok")


async def test_head_timeout_is_over_with_the_head(
    backend: Any, pool_of: MakePool, recorder: Any
) -> None:
    go = asyncio.Event()

    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        if number == 0:
            writer.write(OK[:-2])
            await go.wait()
            writer.write(OK[-2:])
        await reader.read()

    pool = pool_of(await backend.serve(handler))
    slow, silent = recorder(), recorder()
    await pool.send(UpstreamRequest("GET", "/", head_timeout=0.05), slow)
    await slow.begun.wait()
    # It ends after slow's would.
    await pool.send(UpstreamRequest("GET", "/", head_timeout=0.1), silent)
    await silent.ended.wait()
    assert not slow.ends
    go.set()
    assert await slow.answer() == (200, b"ok")


async def test_backend_that_does_not_take_the_request_in_is_timed_out(
    backend: Any, pool_of: MakePool, recorder: Any
) -> None:
    gate = asyncio.Event()

    async def handler(reader: Any, writer: Any, number: int) -> None:
        await gate.wait()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 10_000

    pool = pool_of(await backend.serve(handler))
    for body in (b"x" * 10_000_000, endless()):
        sink = recorder()
        await pool.send(UpstreamRequest("POST", "/", body=body, head_timeout=0.1), sink)
        with pytest.raises(HeadTimeout):
            await sink.answer()
    gate.set()


async def test_slow_uploader_is_not_the_backends_fault(
    backend: Any, pool_of: MakePool, recorder: Any
) -> None:
    keeping = Keeping(backend)
    pool = pool_of(await backend.serve(keeping))
    other = recorder()

    async def slow() -> AsyncIterator[bytes]:
        yield b"a"
        await other.ended.wait()
        yield b"b"

    async def silent(reader: Any, writer: Any, number: int) -> None:
        await reader.read()

    sink = recorder()
    await pool.send(UpstreamRequest("POST", "/", body=slow(), head_timeout=0.05), sink)
    clock = pool_of(await backend.serve(silent))
    await clock.send(UpstreamRequest("GET", "/", head_timeout=0.1), other)
    assert await sink.answer() == (200, b"ok")
    assert keeping.requests[0][2] == b"ab"
