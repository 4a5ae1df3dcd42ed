"""Answers on their way to a client: whole ones, and streams whose head is out already."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

#: Names and values of header fields, in their order.
HeaderList = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class BufferedResponse:
    """A complete answer, not sent yet."""

    status: int
    headers: HeaderList
    body: bytes

    def for_aiohttp(self) -> web.Response:
        """The same for a request that aiohttp serves."""
        return web.Response(status=self.status, headers=CIMultiDict(self.headers), body=self.body)


#: What a handler has made of a request: the second one is under way already, or for aiohttp.
Answer = BufferedResponse | web.StreamResponse


class StartedResponse(abc.ABC):
    """A streamed answer whose head has been sent; ``response`` is what it says."""

    __slots__ = ("chunked", "full", "response", "transport")

    #: Whether ``full`` is called when more waits for the client than its transport likes.
    tells_when_full = False

    def __init__(
        self, response: web.StreamResponse, transport: asyncio.Transport, *, chunked: bool
    ) -> None:
        self.response = response
        self.transport = transport
        self.chunked = chunked
        self.full: Callable[[], None] | None = None

    def write(self, data: bytes) -> None:
        """Write one piece, framed as this client needs it."""
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    @property
    def is_full(self) -> bool:
        """Whether it is already: it won't be told again."""
        return False

    @property
    def takes_more(self) -> bool:
        """Whether the client is here, and has taken all that was written for it."""
        transport = self.transport
        return not (transport.is_closing() or self.is_full or transport.get_write_buffer_size())

    @abc.abstractmethod
    async def drain(self) -> None:
        """Wait until the client has taken most of what waits for it."""

    @abc.abstractmethod
    async def finish(self) -> None:
        """End it: it is complete."""

    def break_off(self, event: bytes | None) -> None:
        """End it so that it can't be taken for complete: no last chunk, and the connection closes.

        ``event`` goes out before, for clients that read Server-Sent Events.
        """
        if event is None:
            self.transport.abort()
            return
        self.write(event)
        self.transport.close()


#: Sends the head of a streamed answer: status, headers, and the body's length if it is known.
#: Raises ``ConnectionError`` if the client has gone.
StartResponse = Callable[[int, CIMultiDict[str], int | None], Awaitable[StartedResponse]]


def by_aiohttp(request: web.BaseRequest) -> StartResponse:
    """What begins a streamed answer to a request that aiohttp serves.

    Only public parts of it are used: ``StreamResponse.prepare`` returns the writer that holds
    the head, ``AbstractStreamWriter.send_headers`` and ``drain``, ``BaseRequest.transport``.
    """

    async def send_head(
        status: int, passed: CIMultiDict[str], length: int | None
    ) -> StartedResponse:
        response = web.StreamResponse(status=status, headers=passed)
        if length is not None:
            response.content_length = length
        writer = await response.prepare(request)
        transport = request.transport
        if writer is None or transport is None:
            raise ConnectionError("the client has gone")
        writer.send_headers()
        chunked = length is None and request.version >= HttpVersion11
        return _StartedByAiohttp(response, transport, writer, chunked=chunked)

    return send_head


class _StartedByAiohttp(StartedResponse):
    __slots__ = ("_writer",)

    def __init__(
        self,
        response: web.StreamResponse,
        transport: asyncio.Transport,
        writer: AbstractStreamWriter,
        *,
        chunked: bool,
    ) -> None:
        super().__init__(response, transport, chunked=chunked)
        self._writer = writer

    async def drain(self) -> None:
        await self._writer.drain()

    async def finish(self) -> None:
        await self.response.write_eof()
