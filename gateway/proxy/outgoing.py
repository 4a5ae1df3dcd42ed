"""The client's side of a streamed answer: its head is out, pieces of the body are to follow.

Only public parts of aiohttp are used: ``StreamResponse.prepare`` returns the writer that holds
the head, ``AbstractStreamWriter.send_headers`` and ``drain``, ``BaseRequest.transport``.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from gateway.proxy import headers
from gateway.upstream import ResponseHead

EVENTS = "text/event-stream"


class Opened(NamedTuple):
    """A streamed answer whose head has been sent."""

    response: web.StreamResponse
    writer: AbstractStreamWriter
    transport: asyncio.Transport
    chunked: bool

    def write(self, data: bytes) -> None:
        """Write one piece, framed as this client needs it."""
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def break_off(self, event: bytes | None) -> None:
        """End it so that it can't be taken for complete: no last chunk, and the connection closes.

        ``event`` goes out before, for clients that read Server-Sent Events.
        """
        if event is None:
            self.transport.abort()
            return
        self.write(event)
        self.transport.close()


async def open_stream(request: web.BaseRequest, head: ResponseHead) -> Opened:
    """Send the head of a backend's streamed answer.

    Raises ``ConnectionError`` if the client has gone.
    """
    passed = headers.to_client(head.headers)
    if passed.get("Content-Type", "").startswith(EVENTS):
        passed.extend(headers.STREAM_HEADERS)
    response = web.StreamResponse(status=head.status, headers=passed)
    if head.length is not None:
        response.content_length = head.length
    return await _send_head(request, response)


async def open_events(request: web.BaseRequest) -> Opened:
    """Begin a stream of events before there is a backend to fill it."""
    response = web.StreamResponse(headers={"Content-Type": EVENTS, **dict(headers.STREAM_HEADERS)})
    return await _send_head(request, response)


async def _send_head(request: web.BaseRequest, response: web.StreamResponse) -> Opened:
    writer = await response.prepare(request)
    transport = request.transport
    if writer is None or transport is None:
        raise ConnectionError("the client has gone")
    writer.send_headers()
    chunked = response.content_length is None and request.version >= HttpVersion11
    return Opened(response, writer, transport, chunked)
