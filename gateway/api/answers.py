"""The wire format of the front door's answers (RFC 9112, 4 and 6)."""

from __future__ import annotations

import functools
import time
from collections.abc import Collection
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web

from gateway.api.middleware import about, decorate, hsts
from gateway.api.request import FrontRequest
from gateway.proxy.headers import Headers
from gateway.proxy.outgoing import Whole

if TYPE_CHECKING:
    from gateway.api.heads import Head

CLOSE = b"Connection: close\r\n"
_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}


def whole(request: FrontRequest, head: Head, answered: Whole) -> bytes:
    """A complete answer to ``request``, whose head is ``head``."""
    body = answered.body
    framing = length_line(len(body)) if body or answered.status != 204 else b""  # RFC 9110, 8.6
    if not head.keep_alive:
        framing += CLOSE
    lines = b"".join(
        (
            _kept_lines(answered.headers),
            head.fixed(request.app, hsts(request)),
            lines_of(about(request)),
        )
    )
    return head_of(answered.status, lines, framing) + body


def refusal(request: FrontRequest, answered: web.StreamResponse, *, keep_alive: bool) -> bytes:
    """An answer that was made for aiohttp, an error in most cases."""
    assert isinstance(answered, web.Response)
    body = answered.body or b""
    assert isinstance(body, bytes)
    decorate(request, answered.headers)
    framing = length_line(len(body))
    if not keep_alive:
        framing += CLOSE
    return head_of(answered.status, lines_of(answered.headers.items()), framing) + body


def head_of(status: int, lines: bytes, framing: bytes) -> bytes:
    """The head of an answer: ``lines`` and ``framing`` are header lines, each with its end."""
    line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    return b"%b%bDate: %b\r\n%b\r\n" % (line, lines, _date_of(int(time.time())), framing)


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
def _kept_lines(headers: Headers) -> bytes:
    return lines_of(headers)


@functools.lru_cache(2)
def _date_of(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()
