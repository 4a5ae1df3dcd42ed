"""Answers on their way to a client: whole ones, and streams whose head is out already."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from multidict import CIMultiDict

from gateway.http.flow_control import FlowControl

#: Names and values of header fields, in their order.
HeaderList = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class BufferedResponse:
    """A complete answer, not sent yet. ``closes``: the connection ends behind it."""

    status: int
    headers: HeaderList
    body: bytes
    closes: bool = False


class StartedResponse:
    """A streamed answer whose head has been sent.

    ``chunked``: its body is framed by chunks (RFC 9112, 7.1), and not by its length or the end of
    the connection.
    """

    __slots__ = ("chunked", "finished", "flow", "status", "transport")

    def __init__(
        self, status: int, transport: asyncio.Transport, flow: FlowControl, *, chunked: bool
    ) -> None:
        self.status = status
        self.transport = transport
        self.flow = flow
        self.chunked = chunked
        #: Whether all of it is written.
        self.finished = False

    def write(self, data: bytes) -> None:
        """Write one piece, framed as this client needs it."""
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    @property
    def takes_more(self) -> bool:
        """Whether the client is here, and has taken all that was written for it."""
        transport = self.transport
        return not (transport.is_closing() or self.flow.full or transport.get_write_buffer_size())

    async def finish(self) -> None:
        """End it: it is complete."""
        self.finished = True
        if self.chunked:
            self.transport.write(b"0\r\n\r\n")

    def break_off(self, event: bytes | None) -> None:
        """End it so that it can't be taken for complete: no last chunk, and the connection closes.

        ``event`` goes out before, for clients that read Server-Sent Events.
        """
        if event is None:
            self.transport.abort()
            return
        self.write(event)
        self.transport.close()


#: What a handler makes of a request. The last one only where aiohttp serves it.
Answer = BufferedResponse | StartedResponse | web.StreamResponse

#: Sends the head of a streamed answer: status, headers, and the body's length if it is known.
#: Raises ``ConnectionError`` if the client has gone.
StartResponse = Callable[[int, CIMultiDict[str], int | None], Awaitable[StartedResponse]]
