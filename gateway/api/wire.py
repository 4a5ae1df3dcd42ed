"""What is no proper HTTP: refused as everything else is, and its text, a key in it, told nowhere.

aiohttp answers a malformed request before there is a request for the middleware: as plain text,
with the line in question, its own name and version, and it logs that line. Here such an answer is
an error object without the line, and the log says only that it happened.

Public parts of aiohttp: ``AppRunner.server`` makes one ``RequestHandler`` for each connection, and
``RequestHandler.handle_error`` answers.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import logging
import socket
import struct
import termios
from typing import TYPE_CHECKING, Any, cast

import orjson
from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from gateway.errors import BadRequest, GatewayError, error_body

if TYPE_CHECKING:
    from gateway.api.connections import Connections

#: On every answer: what a browser must not do with it, and no version of anything.
EVERY_ANSWER = {
    "Server": "llm-gateway",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}


#: What aiohttp raises for what came: the second for a body that is not what its headers say.
_NOT_HTTP = (HttpProcessingError, web.RequestPayloadError)


def _is_strange_expect(error: object) -> bool:
    """Whether aiohttp wanted to repeat an ``Expect`` to its sender, and it wasn't UTF-8."""
    return isinstance(error, UnicodeEncodeError) and "Unknown Expect" in error.object


#: Closed with this, a connection is reset, and its megabytes of unread answer are not kept.
_RESET = struct.pack("ii", 1, 0)


class _WithoutItsText(logging.Filter):
    """What was wrong with a request, without the request."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, GatewayError | web.RequestPayloadError):
            return False  # the body was given up, and its client told
        if isinstance(error, _NOT_HTTP) or _is_strange_expect(error):
            record.msg = f"{record.msg}: {type(error).__name__}, answered with 4xx"
            record.exc_info = None
            record.levelno, record.levelname = logging.INFO, "INFO"  # nothing is wrong with us
        return True


_log = logging.getLogger(__name__)
_log.addFilter(_WithoutItsText())


class Runner(web.AppRunner):
    """An ``AppRunner`` whose connections are counted and timed by ``connections``.

    ``handler`` are options of ``RequestHandler``.
    """

    __slots__ = ("_connections", "_handler")

    def __init__(
        self,
        app: web.Application,
        *,
        connections: Connections,
        handler: dict[str, Any],
        **options: Any,
    ) -> None:
        super().__init__(app, **options)
        self._connections = connections
        self._handler = handler

    @property
    def server(self) -> Any:
        """What makes the handler of a new connection; ``None`` before ``setup()``."""
        server = super().server
        if server is None:
            return None
        loop, options = asyncio.get_running_loop(), self._handler
        connections = self._connections
        return lambda: Connection(server, connections, loop=loop, logger=_log, **options)


class Connection(web.RequestHandler):
    """One connection: refused if there are too many, given up if it keeps us waiting.

    Its clock runs from the first byte of a request (from the start, for the first one) until the
    middleware has it (:meth:`began`), and on until its body is there.
    """

    __slots__ = ("_body", "_connections", "_idle", "_network", "_refusal", "_wire", "received")

    def __init__(self, manager: Any, connections: Connections, **options: Any) -> None:
        super().__init__(manager, **options)
        self._connections = connections
        self._network: bytes | None = None
        self._refusal: bytes | None = None
        self._wire: asyncio.Transport | None = None  # also when aiohttp has let go of it
        self._idle = False  # between two requests
        self._body: StreamReader | None = None
        #: Bytes since the clock was started.
        self.received = 0

    def admitted(self, network: bytes | None, refusal: bytes | None) -> None:
        """What ``Connections.admit`` said, before there was TLS to talk through."""
        self._network, self._refusal = network, refusal

    def handshake_ended(self) -> None:
        """If it came to nothing, this is the end of the connection."""
        if self._wire is None:
            self._give_back()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        if self._network is None and self._refusal is None:
            peer = transport.get_extra_info("peername")
            self._network, self._refusal = self._connections.admit(peer)
        if self._refusal is not None:
            transport.write(self._refusal)
            transport.close()
            return
        super().connection_made(transport)
        self._connections.await_head(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._give_back()
        super().connection_lost(exc)

    def _give_back(self) -> None:
        network, self._network = self._network, None
        self._connections.left(self, network)

    async def start(self) -> None:
        """Answer requests until there are no more; then what is written may still be unread."""
        try:
            await super().start()
        finally:
            if self._wire is not None and self._wire.get_write_buffer_size():
                self._connections.await_reader(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._connections.await_reader(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._connections.has_read(self)

    @property
    def unread(self) -> int:
        """Bytes of answers that are not at the client's yet.

        The kernel's too: it holds megabytes, and tells of room only when a third is free.
        """
        if self._wire is None:
            return 0
        queued = array.array("i", [0])
        with contextlib.suppress(OSError, ValueError):  # not everywhere (tcp(7), SIOCOUTQ)
            fcntl.ioctl(self._wire.get_extra_info("socket").fileno(), termios.TIOCOUTQ, queued)
        return self._wire.get_write_buffer_size() + queued[0]

    def cut(self) -> None:
        """End it at once, with what is unread, also by the kernel."""
        if self._wire is not None:
            carrier = self._wire.get_extra_info("socket")
            with contextlib.suppress(OSError):
                carrier.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._wire.abort()

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return
        if self._idle and data:
            self._idle = False
            self.received = 0
            self._connections.await_head(self)
        self.received += len(data)
        super().data_received(data)
        if self._body is not None and self._messages and not self._body.is_eof():
            # A next message before this one's end: aiohttp's parser has given up within the body
            # (a bad chunk), and nobody told who waits for it.
            self._body.set_exception(web.RequestPayloadError("malformed"))

    def began(self, request: web.BaseRequest) -> None:
        """A request is about to be answered."""
        self._idle = False
        if request.content.is_eof():
            self._connections.forget(self)
        else:
            self._body, self.received = request.content, 0
            self._connections.await_body(self)

    def ended(self) -> None:
        """Its answer is made."""
        self._idle = True
        if self._body is not None:
            self._body = None
            self._connections.forget(self)

    def give_up(self, answer: bytes) -> None:
        """End a connection on which no request came about."""
        if self.transport is not None and answer:
            self.transport.write(answer)
        self.force_close()

    def give_up_body(self, error: Exception) -> None:
        """Let whoever reads the body fail with ``error``."""
        if self._body is not None:
            self._body.set_exception(error)

    @property
    def body_is_there(self) -> bool:
        """Whether nothing more is to come of this request."""
        return self._body is None or self._body.is_eof()

    @property
    def is_reading(self) -> bool:
        """Whether what the client sends is taken at all, or held back."""
        return self.transport is not None and self.transport.is_reading()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)  # logs; raises if it is too late
        if _is_strange_expect(exc):
            status = 400
        if isinstance(exc, LineTooLong):
            said = f"the request line, or a header, is over {exc.args[1]} bytes"
        elif status < 500:
            kind = type(exc).__name__ if exc is not None else "malformed"
            said = f"this is not a valid HTTP/1.1 request ({kind})"
        else:
            said = "internal error"
        body = BadRequest(said, code="malformed_request").body()
        if status >= 500:
            body = error_body(said, type_="api_error", code="internal_error")
        answer = web.Response(
            status=status,
            body=orjson.dumps(body),
            content_type="application/json",
            headers={**EVERY_ANSWER, "Cache-Control": "no-store"},
        )
        answer.force_close()
        return answer
