"""Answers: complete ones, and streams whose head has been sent.

Below them is how the fast JSON protocol writes them (RFC 9112, 4 and 6).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Protocol

from aiohttp import web
from multidict import CIMultiDict

from gateway.http.flow_control import Flow

#: Names and values of header fields, in their order.
HeaderList = tuple[tuple[str, str], ...]


class Context(Protocol):
    """The application's context of a request."""

    def answer_headers(self) -> Collection[tuple[str, str]]:
        """Return the header fields of its answer that say what became of this very request."""


@dataclass(slots=True)
class BufferedResponse:
    """A complete answer, not sent yet. ``closes``: the connection ends after it."""

    status: int
    headers: HeaderList
    body: bytes
    closes: bool = False


class Outlet(Protocol):
    """The transport of an answer, or what passes an answer on to one."""

    def write(self, data: bytes, /) -> None: ...

    def is_closing(self) -> bool: ...

    def get_write_buffer_size(self) -> int: ...

    def abort(self) -> None: ...

    def close(self) -> None: ...


class StartedResponse:
    """A streamed answer whose head has been sent.

    ``chunked``: its body is framed by chunks (RFC 9112, 7.1), and not by its length or the end of
    the connection.
    """

    __slots__ = ("chunked", "finished", "flow", "status", "transport")

    def __init__(self, status: int, transport: Outlet, flow: Flow, *, chunked: bool) -> None:
        self.status = status
        self.transport = transport
        self.flow = flow
        self.chunked = chunked
        #: Whether the whole answer is written.
        self.finished = False

    def write(self, data: bytes) -> None:
        """Write one piece, framed as this client needs it."""
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    @property
    def takes_more(self) -> bool:
        """Whether the client is connected, and has taken all that was written."""
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


#: What a handler returns; the last of them only on routes that aiohttp serves.
Answer = BufferedResponse | StartedResponse | web.StreamResponse

#: Sends the head of a streamed answer: status, headers, and the body's length if it is known.
#: Raises ``ConnectionError`` if the client has gone.
StartResponse = Callable[[int, CIMultiDict[str], int | None], Awaitable[StartedResponse]]

# --- as bytes ------------------------------------------------------------------------------

CLOSE = b"Connection: close\r\n"
_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}


def as_bytes(
    answered: BufferedResponse, fixed: bytes, context: Context | None, *, keep_alive: bool
) -> bytes:
    """Return a complete answer; ``fixed``: header lines of every answer to this head."""
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
    """Return the head of an answer: ``lines`` and ``framing`` are header lines, each
    with its end.
    """
    line = _STATUS_LINES.get(status) or _status_line(status)
    return b"".join((line, lines, _date_line(int(time.time())), framing, b"\r\n"))


def length_line(size: int) -> bytes:
    """Return the framing of a body of ``size`` bytes."""
    return b"Content-Length: %d\r\n" % size


def lines_of(pairs: Collection[tuple[str, str]]) -> bytes:
    """Return the header lines. Raises ``ValueError`` for a header with a line end in it."""
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
