"""Back-pressure as a stream begins: one whose client is full already waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.http.flow_control import FlowControl
from gateway.http.response import StartedResponse
from gateway.proxy.sink import Sink
from gateway.proxy.sse import Tail
from gateway.upstream import ChunkForwarder, Exchange


class _Transport(asyncio.Transport):
    """A client's, which has taken some of what was written, but not enough to be told so."""

    def write(self, data: Any) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 40_000


class _Exchange(Exchange):
    """One that notes what it is told."""

    paused = False
    forwarder: ChunkForwarder | None = None

    def __init__(self) -> None: ...

    def pause(self) -> None:
        self.paused = True

    def pass_chunks(self, forwarder: ChunkForwarder) -> None:
        self.forwarder = forwarder


@pytest.mark.parametrize("full", [False, True])
async def test_client_that_was_full_before_its_stream_began_pauses_it(full: bool) -> None:
    """Its transport says so once: while the model loads, or before. Chunks would pile up."""
    flow = FlowControl()
    if full:
        flow.pause()
    client = StartedResponse(200, _Transport(), flow, chunked=True)
    answer, exchange = Sink(), _Exchange()
    answer.flow_to(client, exchange, Tail(), None)
    assert exchange.forwarder is not None
    assert (answer.paused, exchange.paused) == (full, full)
    flow.pause()
    assert (answer.paused, exchange.paused) == (True, True)
