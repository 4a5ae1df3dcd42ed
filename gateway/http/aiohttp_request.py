"""Requests that aiohttp serves, as handlers of both protocols see them, and their answers.

Only public parts of aiohttp are used: ``StreamResponse.prepare`` returns the writer that holds
the head, ``AbstractStreamWriter.send_headers`` sends it, ``BaseRequest.transport``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import HttpVersion11, web
from multidict import CIMultiDict, MultiMapping

from gateway.http.aiohttp_connection import AiohttpConnection
from gateway.http.flow_control import FlowControl
from gateway.http.response import Answer, BufferedResponse, StartedResponse


class AiohttpRequest:
    """A :class:`gateway.http.request.Request` that aiohttp has parsed.

    ``read`` reads the whole body of one.
    """

    __slots__ = ("_raw", "_read")

    def __init__(self, raw: web.Request, read: Callable[[web.Request], Awaitable[bytes]]) -> None:
        self._raw = raw
        self._read = read

    @property
    def method(self) -> str:
        """The method."""
        return self._raw.method

    @property
    def path(self) -> str:
        """The target without its query."""
        return self._raw.path

    @property
    def version(self) -> tuple[int, int]:
        """The version of HTTP that the client speaks."""
        return self._raw.version

    @property
    def headers(self) -> MultiMapping[str]:
        """The header fields."""
        return self._raw.headers

    @property
    def query(self) -> MultiMapping[str]:
        """The parameters of the query."""
        return self._raw.query

    @property
    def remote(self) -> str | None:
        """The address that the connection came from."""
        return self._raw.remote

    @property
    def secure(self) -> bool:
        """Whether it came over TLS."""
        return self._raw.secure

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport of its answer; None if its client has gone."""
        return self._raw.transport

    @property
    def can_read_body(self) -> bool:
        """Whether it has a body."""
        return self._raw.can_read_body

    async def body(self) -> bytes:
        """Return the whole body."""
        return await self._read(self._raw)

    async def start_response(
        self, status: int, headers: CIMultiDict[str], length: int | None
    ) -> StartedResponse:
        """Begin a streamed answer: see :data:`gateway.http.response.StartResponse`."""
        request = self._raw
        response = web.StreamResponse(status=status, headers=headers)
        if length is not None:
            response.content_length = length
        writer = await response.prepare(request)
        transport = request.transport
        if writer is None or transport is None:
            raise ConnectionError("the client has gone")
        writer.send_headers()
        connection = request.protocol
        assert isinstance(connection, AiohttpConnection)
        chunked = length is None and request.version >= HttpVersion11
        return _StartedByAiohttp(response, transport, connection.flow, chunked=chunked)


class _StartedByAiohttp(StartedResponse):
    """A stream whose end aiohttp writes, as it has written the head."""

    __slots__ = ("response",)

    def __init__(
        self,
        response: web.StreamResponse,
        transport: asyncio.Transport,
        flow: FlowControl,
        *,
        chunked: bool,
    ) -> None:
        super().__init__(response.status, transport, flow, chunked=chunked)
        self.response = response

    async def finish(self) -> None:
        self.finished = True
        await self.response.write_eof()


def as_aiohttp(answered: Answer) -> web.StreamResponse:
    """Return what aiohttp takes for the answer that a handler gave to one of its requests."""
    if isinstance(answered, BufferedResponse):
        headers = CIMultiDict(answered.headers)
        whole = web.Response(status=answered.status, headers=headers, body=answered.body)
        if answered.closes:
            whole.force_close()
        return whole
    if isinstance(answered, StartedResponse):
        assert isinstance(answered, _StartedByAiohttp)
        return answered.response
    return answered
