"""The front door: what every connection meets first, and what serves the requests that matter.

A chat is a POST with a small JSON body that comes in one piece. Such a request is parsed here by
llhttp (through httptools), handled in one task, and its answer is written straight to the socket:
measured at a third of what aiohttp's server costs. Everything else - another method or path, a
query, a body that is long, chunked or compressed, ``Expect``, anything odd at all - is not looked
at here: the connection, with every byte that came, is handed over to aiohttp, which serves it to
its end. So there is one parser for what is strange, and it is aiohttp's.

What stands around a handler (:func:`gateway.api.middleware.answer`) is the same for both.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import web
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from multidict import CIMultiDict

from gateway.api.context import SETTINGS
from gateway.api.line import Line
from gateway.api.middleware import answer, decorate
from gateway.api.request import AnyHandler, FrontRequest
from gateway.proxy.outgoing import Opened

if TYPE_CHECKING:
    from gateway.api.connections import Connections

#: Bytes. A longer head, or body, is aiohttp's. It takes heads up to here or more.
MAX_HEAD = 8000
MAX_BODY = 64 * 1024
#: Bytes of further requests that wait behind one that is being answered.
_MAX_BEHIND = 64 * 1024
_MAX_HEADERS = 100
_POST = b"POST /"
_END = b"\r\n\r\n"
#: Header lines that say more of a request than a small whole one needs.
_ODD = frozenset(
    {b"transfer-encoding", b"content-encoding", b"expect", b"upgrade", b"trailer", b"te"}
)

_log = logging.getLogger(__name__)


class Entrance:
    """What all connections of one listener share.

    ``routes``: the handlers of POST requests, by their exact targets. ``make``: what serves a
    connection that is handed over.
    """

    def __init__(
        self,
        app: web.Application,
        routes: Mapping[bytes, AnyHandler],
        connections: Connections,
        make: Callable[[Line], asyncio.Protocol],
    ) -> None:
        self.app = app
        self.routes = routes
        self.connections = connections
        self.make = make
        self.max_body = min(MAX_BODY, app[SETTINGS].limits.max_body)
        self.open: set[Front] = set()
        self.loop = asyncio.get_running_loop()

    def __call__(self) -> Front:
        """The protocol of a new connection."""
        return Front(self)

    async def close(self) -> None:
        """End what is still here."""
        tasks = [front.end() for front in list(self.open)]
        if running := [task for task in tasks if task is not None]:
            await asyncio.wait(running)


class _Head:
    """The head of a request, told by httptools."""

    __slots__ = ("count", "headers", "hosts", "length", "plain", "target")

    def __init__(self) -> None:
        self.target = b""
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.count = 0
        self.hosts = 0
        self.length: bytes | None = None
        self.plain = True  # nothing odd so far

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.count += 1
        lower = name.lower()
        if lower == b"content-length":
            self.plain = self.plain and self.length is None
            self.length = value
        elif lower == b"host":
            self.hosts += 1
        elif lower in _ODD:
            self.plain = False
        # As aiohttp does: bytes that aren't UTF-8 become lone surrogates.
        self.headers.add(name.decode("ascii"), value.decode("utf-8", "surrogateescape"))


class Front(asyncio.Protocol):
    """One connection, until aiohttp gets it or it ends."""

    __slots__ = (
        "_buffer",
        "_closed",
        "_drained",
        "_entrance",
        "_expected",
        "_line",
        "_opened",
        "_paused",
        "_remote",
        "_secure",
        "_task",
        "_timed",
        "_transport",
    )

    _transport: asyncio.Transport

    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance
        self._line = Line(entrance.connections)
        self._buffer = b""  # of a request that isn't whole, or behind one that is answered
        self._expected: _Expected | None = None
        self._task: asyncio.Task[None] | None = None  # answers a request
        self._opened: Opened | None = None  # its answer, if that is a stream
        self._timed = False  # a clock runs for a request that isn't whole
        self._closed = False
        self._paused = False
        self._drained: asyncio.Future[None] | None = None

    # --- transport events ------------------------------------------------------------------

    def admitted(self, network: bytes | None, refusal: bytes | None) -> None:
        """What ``Connections.admit`` said, before there was TLS to talk through."""
        self._line.admitted(network, refusal)

    def handshake_ended(self) -> None:
        """If it came to nothing, this is the end of the connection."""
        self._line.handshake_ended()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a Protocol gets a Transport
        if not self._line.made(self._transport):
            self._closed = True
            return
        peer = transport.get_extra_info("peername")
        self._remote = str(peer[0]) if isinstance(peer, tuple) else None
        self._secure = transport.get_extra_info("sslcontext") is not None
        sock = transport.get_extra_info("socket")
        if sock is not None and self._remote is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._entrance.open.add(self)
        self._start_clock()

    def data_received(self, data: bytes) -> None:
        if self._closed:
            return
        if self._task is None:
            self._take(self._buffer + data if self._buffer else data)
            return
        self._buffer += data
        if len(self._buffer) > _MAX_BEHIND:
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._leave()
        self._line.left()
        if self._task is not None:
            self._task.cancel()
        if self._drained is not None and not self._drained.done():
            self._drained.set_exception(ConnectionResetError("the client has gone"))

    def pause_writing(self) -> None:
        self._paused = True
        self._entrance.connections.await_reader(self._line)

    def resume_writing(self) -> None:
        self._paused = False
        self._entrance.connections.has_read(self._line)
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # --- from bytes to a request -----------------------------------------------------------

    def _take(self, data: bytes) -> None:
        """Answer the request that ``data`` begins with, if it is whole and ours."""
        expected = self._expected
        if expected is None:
            end = data.find(_END, 0, MAX_HEAD)
            if end < 0 and len(data) < MAX_HEAD and _POST.startswith(data[: len(_POST)]):
                self._buffer = data
                self._start_clock()
                return
            expected = self._judge(data[: end + len(_END)]) if end >= 0 else None
            if expected is None:
                self._hand_over(data)
                return
        if len(data) < expected.whole:
            if self._expected is None:
                self._expected = expected
                self._timed = True
                self._entrance.connections.works(self)
                self._entrance.connections.await_the_rest(self)
            self._buffer = data
            return
        self._expected = None
        self._buffer = data[expected.whole :]
        connections = self._entrance.connections
        if self._timed:
            self._timed = False
            connections.stop_waiting(self)
        else:
            connections.works(self)
        request = FrontRequest(
            self._entrance.app,
            expected.path,
            expected.headers,
            data[expected.start : expected.whole],
            self._transport,
            self._remote,
            self._secure,
            self._open,
        )
        # Not through tasks.spawn(): it is referenced here, and logs its own crash.
        self._task = self._entrance.loop.create_task(
            self._serve(request, expected.handler, keep_alive=expected.keep_alive)
        )

    def _judge(self, raw: bytes) -> _Expected | None:
        """What the request with the head ``raw`` is; None if it isn't for us."""
        if not raw.startswith(_POST):
            return None
        head = _Head()
        parser = HttpRequestParser(head)
        try:
            parser.feed_data(raw)
        except (HttpParserError, HttpParserUpgrade):
            return None
        handler = self._entrance.routes.get(head.target)
        lines = head.count + 2  # the request's own, and the empty one
        length = head.length
        if (
            handler is None
            or length is None
            or not head.plain
            or head.hosts != 1
            or head.count > _MAX_HEADERS
            or raw.count(b"\n") != lines
            or raw.count(b"\r") != lines
            or not (len(length) < 9 and length.isdigit() and int(length) <= self._entrance.max_body)
            or parser.get_http_version() != "1.1"
        ):
            return None
        start = len(raw)
        return _Expected(
            handler,
            head.target.decode("ascii"),
            head.headers,
            start,
            start + int(length),
            parser.should_keep_alive(),
        )

    def _start_clock(self) -> None:
        if not self._timed:
            self._timed = True
            self._entrance.connections.works(self)
            self._entrance.connections.await_head(self)

    def _leave(self) -> None:
        """This front door is not the connection's any more."""
        self._closed = True
        entrance = self._entrance
        entrance.open.discard(self)
        entrance.connections.stop_waiting(self)
        entrance.connections.works(self)

    @property
    def received(self) -> int:
        """Bytes of a request that is not yet whole."""
        return len(self._buffer)

    def give_up(self, refusal: bytes) -> None:
        """The rest did not come in time, or nothing for very long."""
        self._timed = False
        if self._expected is not None:
            self._hand_over(self._buffer)  # which has another clock for bodies
            return
        if refusal:
            self._transport.write(refusal)
        self.close()

    def _hand_over(self, data: bytes) -> None:
        """From here on the connection is aiohttp's; ``data`` is what came and wasn't answered."""
        self._leave()
        self._buffer = b""
        transport = self._transport
        connection = self._entrance.make(self._line)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        connection.data_received(data)

    # --- from a request to its answer ------------------------------------------------------

    async def _serve(self, request: FrontRequest, handler: AnyHandler, *, keep_alive: bool) -> None:
        transport = self._transport
        try:
            response = await answer(request, handler)
            keep_alive = keep_alive and response.keep_alive is not False
            if self._opened is None:
                transport.write(_whole(request, response, keep_alive=keep_alive))
            self._opened = None
        except asyncio.CancelledError:
            transport.abort()
            raise
        except Exception:
            _log.exception("an answer could not be written")
            transport.abort()
            return
        self._task = None
        if self._closed:
            return
        if not keep_alive or transport.is_closing():
            self.close()
        elif self._buffer:
            transport.resume_reading()
            self._take(self._buffer)
        else:
            self._entrance.connections.rests(self)

    async def _open(
        self, request: FrontRequest, status: int, headers: CIMultiDict[str], length: int | None
    ) -> Opened:
        if self._closed:
            raise ConnectionError("the client has gone")
        response = web.StreamResponse(status=status, headers=headers)
        decorate(request, response.headers)
        framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        self._transport.write(_head(status, response.headers, framing))
        self._opened = opened = _OpenedHere(response, self._transport, self)
        opened.chunked = length is None
        return opened

    async def drained(self) -> None:
        """Return when the client has taken most of what waits for it."""
        if self._closed:
            raise ConnectionResetError("the client has gone")
        if self._paused:
            self._drained = self._entrance.loop.create_future()
            try:
                await self._drained
            finally:
                self._drained = None

    def close(self) -> None:
        """End it when what is written has gone out."""
        self._closed = True
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._entrance.connections.await_reader(self._line)

    def end(self) -> asyncio.Task[None] | None:
        """Close at once; the task to wait for, if one was running."""
        task = self._task
        if task is not None:
            task.cancel()
        self._transport.abort()
        return task


class _Expected(NamedTuple):
    """A request whose head is here: its body is what lies between ``start`` and ``whole``."""

    handler: AnyHandler
    path: str
    headers: CIMultiDict[str]
    start: int
    whole: int
    keep_alive: bool


class _OpenedHere(Opened):
    __slots__ = ("_front",)

    def __init__(
        self, response: web.StreamResponse, transport: asyncio.Transport, front: Front
    ) -> None:
        super().__init__(response, transport, chunked=True)
        self._front = front

    async def drain(self) -> None:
        await self._front.drained()

    async def finish(self) -> None:
        if self.chunked:
            self.transport.write(b"0\r\n\r\n")


# --- the wire format of answers (RFC 9112, 4 and 6) ------------------------------------------

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}" for status in HTTPStatus}


def _whole(request: FrontRequest, response: web.StreamResponse, *, keep_alive: bool) -> bytes:
    assert isinstance(response, web.Response)
    body = response.body
    assert isinstance(body, bytes)
    headers = response.headers
    decorate(request, headers)
    framing = f"Content-Length: {len(body)}"
    if not keep_alive:
        framing += "\r\nConnection: close"
    return _head(response.status, headers, framing) + body


def _head(status: int, headers: CIMultiDict[str], framing: str) -> bytes:
    line = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} "
    lines = [line, *[f"{name}: {value}" for name, value in headers.items()], _date(), framing]
    text = "\r\n".join(lines)
    if text.count("\n") != text.count("\r\n") or text.count("\r") != text.count("\n"):
        raise ValueError("a header holds a line end")
    return f"{text}\r\n\r\n".encode("utf-8", "surrogateescape")


def _date() -> str:
    return _date_of(int(time.time()))


@functools.lru_cache(2)
def _date_of(second: int) -> str:
    return f"Date: {formatdate(second, usegmt=True)}"


#: The requests served here, by their targets: POST, a model named in a JSON body.
ROUTES: web.AppKey[dict[bytes, AnyHandler]] = web.AppKey("front_routes", dict)
