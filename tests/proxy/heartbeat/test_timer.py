"""The timer behind the heartbeats."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.http.flow_control import FlowControl
from gateway.http.response import StartedResponse
from gateway.proxy.heartbeat import Heartbeat, comment
from gateway.proxy.sse import Tail
from tests.harness import eventually


class _Transport(asyncio.Transport):
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.unsent = 0

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self.unsent


async def test_a_client_that_reads_nothing_gets_none() -> None:
    transport = _Transport()
    flow = FlowControl()
    client = StartedResponse(200, transport, flow, chunked=False)

    async def open_it(*_: object) -> StartedResponse:
        return client

    heart = Heartbeat(open_it, 0.04, comment)
    heart.start()
    try:
        await eventually(lambda: len(transport.written) >= 2)
        transport.unsent = 1
        written = len(transport.written)
        await asyncio.sleep(0.2)  # no beat must come meanwhile
        assert len(transport.written) == written
        transport.unsent = 0
        await eventually(lambda: len(transport.written) > written)
        flow.pause()
        written = len(transport.written)
        await asyncio.sleep(0.2)  # no beat must come meanwhile
        assert len(transport.written) == written
    finally:
        heart.stop()


async def test_one_that_was_stopped_opens_nothing() -> None:
    opened = False

    async def open_it(*_: object) -> StartedResponse:
        nonlocal opened
        opened = True
        raise AssertionError

    heart = Heartbeat(open_it, 0.02, comment)
    heart.start()
    heart.stop()
    await asyncio.sleep(0.1)  # no beat must come meanwhile
    assert not opened
    assert await heart.settled() is None


async def test_client_that_went_before_its_answer_began_is_no_error() -> None:
    async def open_it(*_: object) -> StartedResponse:
        raise ConnectionResetError

    heart = Heartbeat(open_it, 0.02, comment)
    heart.start()
    heart.waiting = lambda: b"queued"
    try:
        await asyncio.sleep(0.1)  # no beat must come meanwhile
        assert await heart.settled() is None
    finally:
        heart.stop()


def test_half_an_event_that_has_passed_is_known(subtests: pytest.Subtests) -> None:
    tail = Tail()
    assert (tail.latest, tail.half()) == (None, b"")
    for piece, half in (
        (b"data: a", b"data: a"),
        (b"b\n", b"data: ab\n"),
        (b"\n", b""),
        (b": x\n", b": x\n"),
        (b"data: y\r\n\r\nda", b"da"),
        (b"ta", b"data"),
        (b": ", b"data: "),
        (b"z", None),
    ):
        with subtests.test(f"{piece!r:.80}"):
            tail.feed(piece)
            assert (tail.latest, tail.half()) == (piece, half)
