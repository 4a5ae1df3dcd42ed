"""Whole small answers, for questions of our own."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from gateway.upstream import HeadTimeout, ProtocolError, UpstreamRequest
from tests.pools import MakePool


async def test_fetched_answer_is_whole_in_time_and_within_its_bound(
    backend: Any, pool_of: MakePool, recorder: Any
) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head, body = await backend.request(reader)
                if b"silent" in head:
                    await reader.read()
                elif b"garbage" in head:
                    writer.write(b"garbage")
                else:
                    answer = b"x" * 2000 if b"big" in head else body or b"none"
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer))
                    writer.write(answer)

    pool = pool_of(await backend.serve(handler), max_connections=1)
    await pool.send(UpstreamRequest("GET", "/silent"), recorder())  # no place is left
    assert await pool.fetch(UpstreamRequest("GET", "/health"), timeout=5) == (
        200,
        [],
        b"none",
    )
    posted = await pool.fetch(UpstreamRequest("POST", "/slots", b"A: b\r\n", b"{}"), timeout=5)
    assert posted.body == b"{}"
    assert (
        len((await pool.fetch(UpstreamRequest("GET", "/big"), timeout=5, max_body=2000)).body)
        == 2000
    )
    with pytest.raises(ProtocolError, match="over 1999 bytes"):
        await pool.fetch(UpstreamRequest("GET", "/big"), timeout=5, max_body=1999)
    with pytest.raises(ProtocolError):
        await pool.fetch(UpstreamRequest("GET", "/garbage"), timeout=5)
    with pytest.raises(HeadTimeout, match=r"llama did not answer within 0\.05 s"):
        await pool.fetch(UpstreamRequest("GET", "/silent"), timeout=0.05)
