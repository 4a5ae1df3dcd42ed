"""The wire format of the fast JSON protocol's answers (RFC 9112, 4 and 6)."""

from __future__ import annotations

import functools
import time
from collections.abc import Collection
from email.utils import formatdate
from http import HTTPStatus

from gateway.http.request import Context
from gateway.http.response import BufferedResponse, HeaderList

CLOSE = b"Connection: close\r\n"
_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}


def whole(
    answered: BufferedResponse, fixed: bytes, context: Context | None, *, keep_alive: bool
) -> bytes:
    """A complete answer; ``fixed``: the header lines that every answer to this head carries."""
    status, body = answered.status, answered.body
    return b"".join(
        (
            _STATUS_LINES.get(status) or _status_line(status),
            _kept_lines(answered.headers),
            fixed,
            lines_of(context.answer_headers()) if context is not None else b"",
            _date_line(int(time.time())),
            length_line(len(body)) if body or status != 204 else b"",  # RFC 9110, 8.6
            b"\r\n" if keep_alive else CLOSE + b"\r\n",
            body,
        )
    )


def head_of(status: int, lines: bytes, framing: bytes) -> bytes:
    """The head of an answer: ``lines`` and ``framing`` are header lines, each with its end."""
    line = _STATUS_LINES.get(status) or _status_line(status)
    return b"".join((line, lines, _date_line(int(time.time())), framing, b"\r\n"))


def length_line(size: int) -> bytes:
    """The framing of a body of ``size`` bytes."""
    return b"Content-Length: %d\r\n" % size


def lines_of(pairs: Collection[tuple[str, str]]) -> bytes:
    """Header lines. Raises ``ValueError`` for a header with a line end in it."""
    text = "".join([f"{name}: {value}\r\n" for name, value in pairs])
    if text.count("\n") != len(pairs) or text.count("\r") != len(pairs):
        raise ValueError("a header holds a line end")
    return text.encode("utf-8", "surrogateescape")


@functools.lru_cache(64)  # the same as headers.to_client() keeps
def _kept_lines(headers: HeaderList) -> bytes:
    return lines_of(headers)


def _status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d \r\n" % status


@functools.lru_cache(2)
def _date_line(second: int) -> bytes:
    return b"Date: %b\r\n" % formatdate(second, usegmt=True).encode()
