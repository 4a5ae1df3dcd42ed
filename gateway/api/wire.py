"""What is no proper HTTP: refused as everything else is, and its text, a key in it, told nowhere.

aiohttp answers a malformed request before there is a request for the middleware: as plain text,
with the line in question, its own name and version, and it logs that line. Here such an answer is
an error object without the line, and the log says only that it happened.

Public parts of aiohttp: ``AppRunner.server`` makes one ``RequestHandler`` for each connection, and
``RequestHandler.handle_error`` answers.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import orjson
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from gateway.errors import BadRequest, error_body

#: On every answer: what a browser must not do with it, and no version of anything.
EVERY_ANSWER = {
    "Server": "llm-gateway",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}


class _WithoutItsText(logging.Filter):
    """What was wrong with a request, without the request."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            record.msg = f"{record.msg}: {type(error).__name__}, answered with {error.code}"
            record.exc_info = None
            record.levelno, record.levelname = logging.INFO, "INFO"  # nothing is wrong with us
        return True


_log = logging.getLogger(__name__)
_log.addFilter(_WithoutItsText())


class Runner(web.AppRunner):
    """An ``AppRunner`` with handlers of ours. ``handler`` are options of ``RequestHandler``."""

    __slots__ = ("_handler",)

    def __init__(self, app: web.Application, *, handler: dict[str, Any], **options: Any) -> None:
        super().__init__(app, **options)
        self._handler = handler

    @property
    def server(self) -> Any:
        """What makes the handler of a new connection; ``None`` before ``setup()``."""
        server = super().server
        if server is None:
            return None
        loop, options = asyncio.get_running_loop(), self._handler
        return lambda: _Handler(server, loop=loop, logger=_log, **options)


class _Handler(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)  # logs; raises if it is too late
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
            headers=EVERY_ANSWER,
        )
        answer.force_close()
        return answer
