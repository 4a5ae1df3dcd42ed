"""The pooled HTTP/1.1 client that relays to llama-server, over Unix sockets and TCP.

Made for one job at the least CPU cost: see :mod:`gateway.upstream.connection` for how an answer
comes back. llama-server (cpp-httplib) closes a connection after 5 s without a request and after
100 requests, so that a pooled connection dies between two requests is normal: a request that got
not one byte of answer on a reused connection is sent again, once, on a fresh one.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterable, Iterable
from typing import NamedTuple, Protocol

from gateway.upstream.answer import (
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    HeadTimeout,
    ProtocolError,
    ResponseHead,
    ResponseSink,
    UpstreamError,
)
from gateway.upstream.connection import Connection, connection_class
from gateway.upstream.exchange import Exchange

_JOIN_BELOW = 64 * 1024  # bytes: up to here copying a body behind its head beats a second write
_BACKLOG_FULL_WAIT = 0.005  # seconds between tries while a Unix socket's backlog is full
_TIMER_SLACK = 0.002  # seconds: uvloop's timers are in whole milliseconds


class UnixAddress(NamedTuple):
    """A socket in the file system. ``authority`` is what ``Host`` names: it has no name itself."""

    path: str
    authority: str = "localhost"


class TcpAddress(NamedTuple):
    """A host and port, with TLS if ``ssl_context`` is given.

    ``authority`` is what ``Host`` names, where that isn't simply both of them.
    """

    host: str
    port: int
    ssl_context: ssl.SSLContext | None = None
    authority: str = ""


class Fetched(NamedTuple):
    """A whole answer."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Upstream(Protocol):
    """What requests are sent to. :class:`UpstreamPool` says what is expected of it."""

    @property
    def exchanges(self) -> int:
        """How many have begun and not ended."""

    async def send(
        self,
        method: str,
        target: str,
        headers: bytes,
        body: bytes | AsyncIterable[bytes] | None,
        sink: ResponseSink,
        *,
        body_length: int | None = None,
    ) -> Exchange:
        """Send a request; everything about its answer goes to ``sink``."""

    async def fetch(
        self,
        method: str,
        target: str,
        *,
        headers: bytes = b"",
        body: bytes | None = None,
        timeout: float,
        max_body: int = 4 * 2**20,
    ) -> Fetched:
        """A whole small answer, without waiting for a place."""


class UpstreamPool:
    """Connections to one backend: at most ``max_connections``, the last used one taken first.

    Times in seconds. ``max_idle_seconds`` stays below llama-server's own 5 s, so that a request
    seldom meets a connection that is just being closed. ``name`` is what errors call the backend.
    To be made and used on one event loop.
    """

    def __init__(
        self,
        address: UnixAddress | TcpAddress,
        *,
        max_connections: int,
        max_idle_seconds: float = 4.0,
        connect_timeout: float = 5.0,
        name: str,
    ) -> None:
        self.name = name
        self.loop = asyncio.get_running_loop()
        self.read_buffer = memoryview(bytearray(64 * 1024))
        self._connection_class = connection_class(self.loop)
        self._address = address
        self._host_line = _host_line(address)
        self._max = max_connections
        self._max_idle = max_idle_seconds
        self._connect_timeout = connect_timeout
        self._busy = 0  # exchanges that have not ended, each with its place
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._idle: list[Connection] = []  # the last used one last
        self._open: set[Connection] = set()
        self.reconnecting: set[Exchange] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._closed = False
        self._all_closed: asyncio.Future[None] | None = None

    @property
    def exchanges(self) -> int:
        """How many have begun and not ended."""
        return self._busy

    async def send(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] | bytes,
        body: bytes | AsyncIterable[bytes] | None,
        sink: ResponseSink,
        *,
        body_length: int | None = None,
        head_timeout: float | None = None,
        queue: bool = True,
    ) -> Exchange:
        """Send a request; everything about its answer goes to ``sink``.

        Returns when the request is written, or handed to a task that streams it. Raises
        ConnectFailed, ConnectTimeout or ConnectionLost where no connection is to be had (the sink
        then hears nothing). Waits while ``max_connections`` exchanges are under way, unless
        ``queue`` is false.

        ``headers``: pairs, or ready lines each ending in CRLF, without what is written here:
        Host (RFC 9112, 3.2), and Content-Length or Transfer-Encoding (all of which are dropped
        from pairs). A streamed body goes out
        with ``body_length`` as its Content-Length, chunked if that is None; it is never sent
        twice. ``head_timeout``: seconds without any progress, up to the head of the answer, that
        the backend may take, not counting those that a streamed body is waited for.
        """
        if self._closed:
            raise ConnectFailed(f"{self.name} is shut down")
        if self._busy < self._max or not queue:
            self._busy += 1
        else:
            await self._wait_for_place()
        exchange: Exchange | None = None
        try:
            line = _beginning(method, target, self._host_line)
            lines = headers if isinstance(headers, bytes) else _header_lines(headers)
            exchange = Exchange(self, sink, method == "HEAD", head_timeout)
            if body is None or isinstance(body, bytes):
                connection = self._take_idle() if self._idle else None
                if connection is None:
                    connection = await self.connect()
                if body:
                    framing = b"Content-Length: %d\r\n\r\n" % len(body)
                    if len(body) < _JOIN_BELOW:
                        exchange.start(connection, b"".join((line, lines, framing, body)), None)
                    else:
                        exchange.start(connection, line + lines + framing, body)
                else:
                    framing = b"\r\n" if method in _NO_BODY else b"Content-Length: 0\r\n\r\n"
                    exchange.start(connection, line + lines + framing, None)
            else:
                if body_length is None:
                    framing = b"Transfer-Encoding: chunked\r\n\r\n"
                else:
                    framing = b"Content-Length: %d\r\n\r\n" % body_length
                connection = await self.connect()
                exchange.start_upload(connection, line + lines + framing, body, body_length)
        except BaseException:
            if exchange is None:
                self.give_back(None)
            else:
                exchange.abort()
            raise
        return exchange

    async def fetch(
        self,
        method: str,
        target: str,
        *,
        headers: Iterable[tuple[str, str]] | bytes = (),
        body: bytes | None = None,
        timeout: float,
        max_body: int = 4 * 2**20,
    ) -> Fetched:
        """A whole small answer, for /health, /slots and /props.

        It doesn't wait for a place: a busy backend must still be able to say that it lives.
        ``timeout`` is for all of it. Raises UpstreamError.
        """
        sink = _Collector(self.loop.create_future(), max_body, self.name)
        exchange: Exchange | None = None
        try:
            async with asyncio.timeout(timeout):
                exchange = await self.send(method, target, headers, body, sink, queue=False)
                return await sink.done
        except TimeoutError:
            raise HeadTimeout(f"{self.name} did not answer within {timeout:g} s") from None
        finally:
            if exchange is not None:
                exchange.abort()

    def abort_all(self) -> None:
        """End every exchange with ConnectionLost and close every connection, at once.

        The pool can be used again: what comes next connects anew.
        """
        for waiting in list(self.reconnecting):
            waiting.failed(ConnectionLost(f"{self.name} was shut down", before_head=True))
        for connection in list(self._open):
            exchange = connection.exchange
            if exchange is None:
                self.connection_ended(connection)
                connection.abort()
            elif isinstance(exchange, Exchange):
                exchange.failed(
                    ConnectionLost(
                        f"{self.name} was shut down", before_head=not connection.head_seen
                    )
                )

    async def close(self) -> None:
        """``abort_all``, refuse what comes or waits, and return when the sockets are closed."""
        self._closed = True
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(ConnectFailed(f"{self.name} is shut down"))
        self.abort_all()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._open:
            if self._all_closed is None:
                self._all_closed = self.loop.create_future()
            await asyncio.shield(self._all_closed)

    # --- places ----------------------------------------------------------------------------

    async def _wait_for_place(self) -> None:
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.give_back(None)  # the place came at the same moment
            else:
                with contextlib.suppress(ValueError):
                    self._waiters.remove(waiter)
            raise

    def give_back(self, connection: Connection | None) -> None:
        """One exchange has ended; ``connection``: reusable."""
        self._busy -= 1
        if connection is not None:
            if self._closed or self._busy + len(self._idle) >= self._max:
                connection.abort()
            else:
                connection.reused = True
                connection.idle_since = now = self.loop.time()
                self._idle.append(connection)
                if self._timer is None or self._timer_at > now + self._max_idle:
                    self.wake_at(now + self._max_idle)
        waiters = self._waiters
        while waiters and self._busy < self._max:
            waiter = waiters.popleft()
            if not waiter.done():
                self._busy += 1
                waiter.set_result(None)

    # --- connections -----------------------------------------------------------------------

    def _take_idle(self) -> Connection | None:
        """The last used connection; there is one."""
        idle = self._idle
        connection = idle.pop()
        if self.loop.time() - connection.idle_since > self._max_idle:
            # The last used one is too old, so all are (the timer is about to say the same).
            idle.append(connection)
            self._close_idle(len(idle))
            return None
        return connection

    def _close_idle(self, count: int) -> None:
        """Close the ``count`` connections that have been idle longest."""
        expired = self._idle[:count]
        del self._idle[:count]
        for connection in expired:
            connection.abort()

    async def connect(self) -> Connection:
        """A fresh connection. Raises ConnectFailed, ConnectTimeout, ConnectionLost."""
        excess = self._busy + len(self._idle) - self._max
        if excess > 0:
            self._close_idle(excess)
        connection = self._connection_class(self)
        try:
            async with asyncio.timeout(self._connect_timeout):
                await self._connect(connection)
        except TimeoutError:
            raise ConnectTimeout(
                f"{self.name} accepted no connection within {self._connect_timeout:g} s"
            ) from None
        except OSError as error:
            raise ConnectFailed(f"cannot connect to {self.name}: {error}") from error
        if self._closed:
            connection.abort()
            raise ConnectFailed(f"{self.name} is shut down")
        if not connection.usable:
            raise ConnectionLost(f"{self.name} closed a new connection at once", before_head=True)
        self._open.add(connection)  # not before: uvloop tells nobody of one it gave up half made
        return connection

    async def _connect(self, connection: Connection) -> None:
        address = self._address
        if isinstance(address, TcpAddress):
            transport, _ = await self.loop.create_connection(
                lambda: connection, address.host, address.port, ssl=address.ssl_context
            )
            _keep_alive(transport.get_extra_info("socket"))
            return
        # Connecting to a Unix socket never waits: it works or fails at once, with EAGAIN while
        # the listener's backlog is full (5 in cpp-httplib). asyncio takes EAGAIN for a connect
        # under way and then writes to a socket that isn't connected, so it's done here.
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            while True:
                try:
                    sock.connect(address.path)
                    break
                except BlockingIOError:
                    await asyncio.sleep(_BACKLOG_FULL_WAIT)
            await self.loop.create_unix_connection(lambda: connection, sock=sock)
        except BaseException:
            sock.close()
            raise

    def connection_ended(self, connection: Connection) -> None:
        """The connection is of no more use, and may be closed already."""
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    def connection_closed(self, connection: Connection) -> None:
        """The socket is closed."""
        self._open.discard(connection)
        if not self._open and self._all_closed is not None and not self._all_closed.done():
            self._all_closed.set_result(None)

    # --- time ------------------------------------------------------------------------------

    def wake_at(self, when: float) -> None:
        """Look at deadlines at loop time ``when``, or before.

        One timer serves all: a timer per request would cost more than the request's parsing.
        """
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = self.loop.call_at(when, self._look_at_deadlines)

    def _look_at_deadlines(self) -> None:
        self._timer = None
        now = self.loop.time() + _TIMER_SLACK
        expired = 0
        for connection in self._idle:
            if connection.idle_since + self._max_idle > now:
                break
            expired += 1
        self._close_idle(expired)
        soonest = self._idle[0].idle_since + self._max_idle if self._idle else 0.0
        for connection in list(self._open):
            exchange = connection.exchange
            if not isinstance(exchange, Exchange) or not exchange.deadline:
                continue
            if connection.head_seen:
                exchange.deadline = 0.0
            elif exchange.deadline <= now:
                exchange.timed_out()
            elif not soonest or exchange.deadline < soonest:
                soonest = exchange.deadline
        if soonest:
            self.wake_at(soonest)


def _keep_alive(sock: socket.socket) -> None:
    """Have the system notice, within a minute, that the machine at the other end is gone.

    It may vanish in the middle of an answer, and nothing else would ever tell.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):  # not everywhere
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


_NO_BODY = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
#: Header lines that are written here, and by nobody else.
_OWN = frozenset({"host", "content-length", "transfer-encoding"})


@functools.lru_cache(256)
def _beginning(method: str, target: str, host_line: str) -> bytes:
    """The request line and ``Host``, as most requests have them again and again."""
    # No space, and nothing that ends the line, may come in through the target.
    if not (method.isalpha() and target.isascii() and target.isprintable()) or " " in target:
        raise ValueError("not a method and a request target")
    return f"{method} {target} HTTP/1.1\r\n{host_line}".encode("ascii")


def _host_line(address: UnixAddress | TcpAddress) -> str:
    authority = address.authority
    if not authority and isinstance(address, TcpAddress):
        host = f"[{address.host}]" if ":" in address.host else address.host
        authority = f"{host}:{address.port}"
    if not (authority.isascii() and authority.isprintable()) or " " in authority:
        raise ValueError("not an authority")
    return f"Host: {authority}\r\n"


def _header_lines(headers: Iterable[tuple[str, str]]) -> bytes:
    lines = []
    for name, value in headers:
        line = f"{name}: {value}"
        if "\r" in line or "\n" in line or "\0" in line or ":" in name:
            raise ValueError(f"not a header: {name!r}")
        if name.lower() not in _OWN:
            lines.append(line + "\r\n")
    return "".join(lines).encode("latin-1")


class _Collector:
    """The sink of :meth:`UpstreamPool.fetch`: the whole answer, up to ``limit`` bytes of body."""

    def __init__(self, done: asyncio.Future[Fetched], limit: int, name: str) -> None:
        self.done = done
        self._limit = limit
        self._name = name
        self._body = bytearray()

    def on_head(self, head: ResponseHead) -> None:
        self._head = head

    def on_body(self, data: bytes) -> None:
        if len(self._body) + len(data) <= self._limit:
            self._body += data
        else:
            self.on_error(ProtocolError(f"{self._name} answered with over {self._limit} bytes"))

    def on_end(self) -> None:
        if not self.done.done():
            head = self._head
            self.done.set_result(Fetched(head.status, head.headers, bytes(self._body)))

    def on_error(self, error: UpstreamError) -> None:
        if not self.done.done():
            self.done.set_exception(error)
