"""A connection that aiohttp serves. Malformed requests get our errors, and their text, which may
hold a key, is never repeated.

aiohttp answers a malformed request before there is a request for the middleware: over HTTP/1.0, as
plain text, with the line in question, and it logs that line. Here such an answer is one of
:mod:`gateway.http.refusals`.

Public parts of aiohttp: ``RequestHandler.handle_error`` answers. The one private attribute that
is read anywhere is :data:`PARSED`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import HttpVersion11, StreamReader, web
from aiohttp.abc import AbstractStreamWriter

from gateway.errors import GatewayError
from gateway.http.client_connection import ClientConnection
from gateway.http.connections import Connections
from gateway.http.flow_control import FlowControl
from gateway.http.half_closed import CONTINUE, ZERO, HalfClosed, look_after
from gateway.http.head_limits import malformed
from gateway.http.refusals import BEGINNING, LINGER

#: A private attribute of aiohttp: the messages that its parser has found, or given up on, and that
#: nobody has taken yet. It tells that a body which is being read will never end (a bad chunk), and
#: where a head begins; nothing public does. With an aiohttp that lacks it, such a client gets its
#: answer from the clock, after ``limits.body_timeout``.
PARSED = "_messages"


#: Heads in one piece that are parsed one by one: half as many as aiohttp lets wait.
_ONE_BY_ONE = 16
_END = b"\r\n\r\n"


class _WithoutItsText(logging.Filter):
    """The reason why a request was refused, without any text of the request."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        # The body was given up, and its client has its answer.
        return not isinstance(error, GatewayError | web.RequestPayloadError)


_log = logging.getLogger(__name__)
_log.addFilter(_WithoutItsText())


class _RawAnswer(web.Response):
    """An answer that is already bytes, for when aiohttp hasn't seen a version of HTTP to
    answer in.
    """

    def __init__(self, answer: bytes, behind: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._answer = answer
        self._behind = behind
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        if request.transport is not None:
            request.transport.write(self._answer)
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        await self._behind()


class AiohttpConnection(web.RequestHandler):
    """A connection that aiohttp serves. It is closed if its client keeps us waiting.

    Its clock runs from the first byte of a request until the middleware has it (:meth:`began`),
    and on until its body is there.
    """

    __slots__ = (
        "_body",
        "_broken",
        "_client",
        "_connections",
        "_deaf",
        "_half_closed",
        "_head_size",
        "_idle",
        "_over",
        "_parsing",
        "_request",
        "_start",
        "_unanswered",
        "_version",
        "flow",
        "received",
    )

    def __init__(
        self, manager: Any, client: ClientConnection, connections: Connections, **options: Any
    ) -> None:
        super().__init__(manager, logger=_log, **options)
        self._client = client
        self._connections = connections
        self._idle = False  # between two requests
        self._body: StreamReader | None = None  # of the request that is being answered
        self._parsing: StreamReader | None = None  # the body that came last, or is coming
        self._start = b""  # of the head that is coming, or came last
        self._head_size = 0  # bytes of an incomplete head
        self._over = False  # one was too long
        self._broken = False  # the parser has given up
        self._deaf = False  # nothing is read any more
        self._request: web.BaseRequest | None = None  # the one that is being answered
        self._unanswered = 0  # requests, that one among them
        self._version = HttpVersion11  # of the last
        #: Set when the client has closed its side, but still waits for its answers.
        self._half_closed: HalfClosed | None = None
        #: Bytes since the clock was started.
        self.received = 0
        self.flow = FlowControl()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.await_head(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._half_closed is not None:
            self._half_closed.end()
        self._connections.forget(self)
        self._client.left(exc)
        self.flow.end()
        super().connection_lost(exc)
        # A body points back here. With TLS such a cycle would keep more than 256 KB until Python's
        # collector runs, which counts objects, and not bytes.
        self._body = self._parsing = None

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp takes it for the end
        """The client sends no more, and may be gone; return ``False`` where the connection ends."""
        if self._half_closed is not None:
            return True
        body = self._parsing
        cut_short = not self._in_a_head
        if (
            self._unanswered <= cut_short  # nothing complete
            or self._version < HttpVersion11
            or self._deaf
            or self.ssl_context is not None
            or self.transport is None
        ):
            return False
        if body is not None and cut_short:
            body.set_exception(web.RequestPayloadError("cut short"))
        self._half_closed = look_after(self.transport, self._probe)
        return self._half_closed is not None

    def _probe(self) -> bytes:
        """Return what can be written now that is no part of an answer."""
        if self._request is None or self._request.version < HttpVersion11:
            return b""
        writer = self._request.writer
        if not writer.output_size:
            return CONTINUE
        return ZERO if getattr(writer, "chunked", False) else b""

    async def start(self) -> None:
        """Answer requests until there are no more; then what is written may still be unread."""
        try:
            await super().start()
        finally:
            if self._client.unwritten:
                self._connections.await_reader(self._client)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.flow.pause()
        self._connections.await_reader(self._client)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.flow.resume()
        self._connections.has_read(self._client)

    def data_received(self, data: bytes) -> None:
        if self._idle and data:
            self._idle = False
            self.received = 0
            self._connections.await_head(self)
        self.received += len(data)
        if self._broken or self._deaf:
            return
        for _ in range(_ONE_BY_ONE):
            # Of several heads in one piece, aiohttp forgets those before a bad one.
            if not self._in_a_head:
                break
            end = data.find(_END) + len(_END)
            if end < len(_END) or end == len(data):
                break
            self._read_head(data[:end])
            if self._broken:
                return
            data = data[end:]
        if self._in_a_head:
            self._read_head(data)
            return
        body = self._parsing
        if self._parse(data) and body is not None and not body.is_eof():
            # A next message before this one's end: aiohttp's parser has given up within the body
            # (a bad chunk), and its reader wasn't told.
            body.set_exception(web.RequestPayloadError("malformed"))

    @property
    def _in_a_head(self) -> bool:
        return self._parsing is None or self._parsing.is_eof()

    def _read_head(self, data: bytes) -> None:
        """Take ``data``, which begins between two requests, or within a head."""
        if self._head_size == 0:
            self._start = data[:BEGINNING]
        elif (missing := BEGINNING - len(self._start)) > 0:
            self._start += data[:missing]
        self._head_size += len(data)
        if not self._parse(data) and self._head_size > self._connections.limits.max_head:
            # Refused when the requests before it are answered: no head has this byte in it, so
            # the parser gives up.
            self._over = True
            self._parse(b"\0")

    def _parse(self, data: bytes) -> bool:
        """Return whether the parser has come to the end of a head, or has given up."""
        parsed = getattr(self, PARSED, None)
        before = len(parsed) if parsed is not None else 0
        super().data_received(data)
        if parsed is not None:
            if len(parsed) == before:
                return False
            self._unanswered += len(parsed) - before
            message, self._parsing = parsed[-1]
            self._broken = not hasattr(message, "version")  # it is an error
            self._version = HttpVersion11 if self._broken else message.version
        self._head_size = 0
        return True

    def began(self, request: web.BaseRequest) -> None:
        """Note that ``request`` is about to be answered."""
        self._idle = False
        self._request = request
        if request.content.is_eof():
            self._connections.forget(self)
        else:
            self._body, self.received = request.content, 0
            self._connections.await_body(self)

    def ended(self) -> None:
        """Note that the request has been answered."""
        self._idle = True
        self._request = None
        self.flow.when_full = None
        self._unanswered -= 1
        if self._half_closed is not None and not self._unanswered:
            self.close()  # when it is written
        if self._body is not None:
            self._body = None
            self._connections.forget(self)

    def give_up(self, error: GatewayError | None) -> None:
        """End a connection on which no request came about."""
        if self.transport is not None and error is not None:
            self.transport.write(self._refusal(self._start, error))
        self.force_close()

    def give_up_body(self, error: Exception) -> None:
        """Let whoever reads the body fail with ``error``."""
        if self._body is not None:
            self._body.set_exception(error)

    @property
    def body_is_there(self) -> bool:
        """Whether all of this request has arrived."""
        return self._body is None or self._body.is_eof()

    @property
    def is_reading(self) -> bool:
        """Whether the client's bytes are read, or held back."""
        return self.transport is not None and self.transport.is_reading()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status < 500:
            error, start = malformed(exc, self._connections.limits, self._over), self._start
        else:
            super().handle_error(request, status, exc, message)  # logs; raises if it is too late
            error, start = GatewayError("internal error"), _beginning(request)
        return _RawAnswer(self._refusal(start, error), self._linger)

    def refused(self, request: web.BaseRequest, error: GatewayError) -> web.StreamResponse:
        """Return ``error`` as the last answer of the connection, over HTTP/1.1 whatever the request
        says.
        """
        return _RawAnswer(self._refusal(_beginning(request), error), self._linger)

    async def _linger(self) -> None:
        """Let go of a client that may still be sending what has been refused.

        With TLS closing waits for the client's own end.
        """
        self._deaf = True
        if self.transport is not None and self.transport.can_write_eof():
            self.transport.write_eof()
            await asyncio.sleep(LINGER)

    def _refusal(self, start: bytes, error: GatewayError) -> bytes:
        peer = self.peername
        client = str(peer[0]) if isinstance(peer, tuple) else None
        return self._connections.refuse(start, error, client)


def _beginning(request: web.BaseRequest) -> bytes:
    return f"{request.method} {request.path} ".encode("utf-8", "surrogateescape")
