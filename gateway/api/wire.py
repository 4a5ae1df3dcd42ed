"""What is no proper HTTP: refused as everything else is, and its text, a key in it, told nowhere.

aiohttp answers a malformed request before there is a request for the middleware: as plain text,
with the line in question, its own name and version, and it logs that line. Here such an answer is
an error object without the line, and the log says only that it happened.

Public parts of aiohttp: ``RequestHandler.handle_error`` answers. The one private attribute that
is read anywhere is :data:`PARSED`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import orjson
from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from gateway.api.connections import EVERY_ANSWER
from gateway.api.line import Line
from gateway.errors import BadRequest, GatewayError, error_body

#: aiohttp's own: what its parser has found, or given up on, and nobody has taken up yet. It says
#: that a body which somebody reads will never end (a bad chunk), which nothing public does. In an
#: aiohttp without it such a client is told ``limits.body_timeout`` later, by the clock.
PARSED = "_messages"

#: What aiohttp raises for what came: the second for a body that is not what its headers say.
_NOT_HTTP = (HttpProcessingError, web.RequestPayloadError)


def _is_strange_expect(error: object) -> bool:
    """Whether aiohttp wanted to repeat an ``Expect`` to its sender, and it wasn't UTF-8."""
    return isinstance(error, UnicodeEncodeError) and "Unknown Expect" in error.object


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


class Connection(web.RequestHandler):
    """One connection that aiohttp serves: given up if it keeps us waiting.

    Its clock runs from the first byte of a request until the middleware has it (:meth:`began`),
    and on until its body is there.
    """

    __slots__ = ("_body", "_connections", "_idle", "_line", "received")

    def __init__(self, manager: Any, line: Line, **options: Any) -> None:
        super().__init__(manager, logger=_log, **options)
        self._line = line
        self._connections = line.connections
        self._idle = False  # between two requests
        self._body: StreamReader | None = None
        #: Bytes since the clock was started.
        self.received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.await_head(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.forget(self)
        self._line.left()
        super().connection_lost(exc)

    async def start(self) -> None:
        """Answer requests until there are no more; then what is written may still be unread."""
        try:
            await super().start()
        finally:
            if self._line.unwritten:
                self._connections.await_reader(self._line)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._connections.await_reader(self._line)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._connections.has_read(self._line)

    def data_received(self, data: bytes) -> None:
        if self._idle and data:
            self._idle = False
            self.received = 0
            self._connections.await_head(self)
        self.received += len(data)
        super().data_received(data)
        if self._body is not None and getattr(self, PARSED, None) and not self._body.is_eof():
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
