"""Answers to what never became a request: malformed, too long, too slow, or one connection too
many.

They are errors like all others, in the shape of the API that was meant as far as the first line
tells, with an id that stands in the log, and HTTP/1.1 whatever came (RFC 9110, 6.2).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import orjson
from multidict import CIMultiDict

from gateway.errors import GatewayError
from gateway.http.answer_headers import EVERY_ANSWER
from gateway.http.cors import Cors
from gateway.http.request import new_id
from gateway.logs import log_request

#: Seconds for which a client may go on sending after its answer. If its connection were closed at
#: once, what still arrives would reset it, and the answer would be lost (RFC 9112, 9.6).
LINGER: Final = 1.0
#: Bytes of a request that are examined here: its first line, and some headers.
BEGINNING: Final = 4096
#: Method and path, without the query, which may hold a key.
_FIRST_LINE = re.compile(
    rb"[\r\n]*([A-Za-z-]{1,20}) (?:https?://[^/?# \r\n]*)?(/[^?# \r\n]{0,200})?", re.IGNORECASE
)
#: How a TLS client begins (RFC 8446, 5.1): with a handshake record.
_TLS_HANDSHAKE = b"\x16\x03"
_ORIGIN = re.compile(rb"\r\norigin:[ \t]*([!-~]{1,300})[ \t]*\r\n", re.IGNORECASE)


class Refusals:
    """Makes the answers to refused requests. ``error_body``: an error as JSON, for clients of a
    path.
    """

    def __init__(self, cors: Cors, error_body: Callable[[str, GatewayError], object]) -> None:
        self._cors = cors
        self._error_body = error_body

    def refuse(
        self, start: bytes, error: GatewayError, client: str | None, *, logged: bool = True
    ) -> bytes:
        """Return the whole answer that says ``error``; the connection is to be closed behind it.

        ``start``: what came, or its first :data:`BEGINNING` bytes. ``client``: its address.
        """
        line = _FIRST_LINE.match(start)
        method = line[1].decode("ascii") if line is not None else "-"
        path = (line[2] or b"-" if line is not None else b"-").decode("utf-8", "surrogateescape")
        request_id = new_id()
        body = orjson.dumps(self._error_body(path, error))
        headers = CIMultiDict(EVERY_ANSWER)
        origin = _ORIGIN.search(start)
        self._cors.decorate(
            {"Origin": origin[1].decode("ascii")} if origin is not None else {}, headers
        )
        headers.update(error.headers)
        headers["Cache-Control"] = "no-store"
        headers["X-Request-Id"] = request_id
        headers["Date"] = formatdate(time.time(), usegmt=True)
        headers["Connection"] = "close"
        headers["Content-Type"] = "application/json"
        headers["Content-Length"] = str(len(body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        if start.startswith(
            _TLS_HANDSHAKE
        ):  # https:// was written, and tls is off: nothing says it
            path = "https-without-tls.enabled"
        if logged:
            log_request(request_id, method, path, error.status, 0.0, "-", "-", client or "-")
        head = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n{lines}\r\n".encode()
        return head if method == "HEAD" else head + body
