"""The pooled HTTP/1.1 client that relays to llama-server, over Unix sockets and TCP.

Made for one job at the least CPU cost: see :mod:`gateway.proxy.connection` for how an answer
comes back. llama-server (cpp-httplib) closes a connection after 5 s without a request and after
100 requests, so that a pooled connection dies between two requests is normal: a request that got
not one byte of answer on a reused connection is sent again, once, on a fresh one.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterable, Iterable
from typing import NamedTuple

from gateway.proxy.connection import (
    ConnectFailed,
    Connection,
    ConnectionLost,
    ConnectTimeout,
    HeadTimeout,
    ProtocolError,
    ResponseHead,
    ResponseSink,
    SinkFailed,
    UploadFailed,
    UpstreamError,
    connection_class,
)
from gateway.tasks import spawn

__all__ = [
    "ConnectFailed",
    "ConnectTimeout",
    "ConnectionLost",
    "Exchange",
    "Fetched",
    "HeadTimeout",
    "ProtocolError",
    "ResponseHead",
    "ResponseSink",
    "SinkFailed",
    "TcpAddress",
    "UnixAddress",
    "UploadFailed",
    "UpstreamError",
    "UpstreamPool",
]

_JOIN_BELOW = 64 * 1024  # bytes: up to here copying a body behind its head beats a second write
_BACKLOG_FULL_WAIT = 0.005  # seconds between tries while a Unix socket's backlog is full
_TIMER_SLACK = 0.002  # seconds: uvloop's timers are in whole milliseconds


class UnixAddress(NamedTuple):
    """A socket in the file system."""

    path: str


class TcpAddress(NamedTuple):
    """A host and port, with TLS if ``ssl_context`` is given."""

    host: str
    port: int
    ssl_context: ssl.SSLContext | None = None


class Fetched(NamedTuple):
    """A whole answer."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Exchange:
    """One request and its answer. It holds one place in its pool until it ends."""

    __slots__ = (
        "_body",
        "_bodyless",
        "_connection",
        "_head",
        "_paused",
        "_pool",
        "_sink",
        "_task",
        "_timeout",
        "answered",
        "deadline",
    )

    def __init__(
        self, pool: UpstreamPool, sink: ResponseSink, *, bodyless: bool, timeout: float | None
    ) -> None:
        self._pool = pool
        self._sink: ResponseSink | None = sink  # None: ended
        self._bodyless = bodyless
        self._timeout = timeout
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None  # uploads, or connects once more
        self._head = b""
        self._body: bytes | None = None
        self._paused = False
        self.answered = False  # a byte of answer came
        self.deadline = 0.0  # loop time until which the head must be here; 0: none

    def pause(self) -> None:
        """Stop reading the answer. What was read already still comes, at most one read."""
        self._paused = True
        connection = self._connection
        if connection is not None and connection.usable:
            connection.transport.pause_reading()

    def resume(self) -> None:
        """Go on reading."""
        self._paused = False
        connection = self._connection
        if connection is not None and connection.usable:
            connection.transport.resume_reading()

    def abort(self) -> None:
        """Close the connection at once; no callback comes any more."""
        self._end(reusable=False)

    # --- called by the pool ----------------------------------------------------------------

    def start(self, connection: Connection, head: bytes, body: bytes | None) -> None:
        """Send the request, or its head where the body is streamed after it."""
        self._write(connection, head, body)
        if connection.reused:
            self._head, self._body = head, body  # in case the connection turns out to be dead

    def start_upload(
        self, connection: Connection, head: bytes, body: AsyncIterable[bytes], length: int | None
    ) -> None:
        """Send the head, and then the body as it comes."""
        sink = self._sink
        assert sink is not None
        self._connection = connection
        connection.begin(self, sink, bodyless=self._bodyless)
        connection.transport.write(head)
        self._task = spawn(
            self._upload(connection, body, length), name=f"upload to {self._pool.name}"
        )

    def _write(self, connection: Connection, head: bytes, body: bytes | None) -> None:
        sink = self._sink
        assert sink is not None
        self._connection = connection
        connection.begin(self, sink, bodyless=self._bodyless)
        transport = connection.transport
        transport.write(head)
        if body is not None:
            transport.write(body)
        if self._paused:
            transport.pause_reading()
        if self._timeout is not None:
            self._expect(self._timeout)

    def _expect(self, timeout: float) -> None:
        self.deadline = deadline = self._pool.loop.time() + timeout
        self._pool.wake_at(deadline)

    async def _upload(
        self, connection: Connection, body: AsyncIterable[bytes], length: int | None
    ) -> None:
        transport = connection.transport
        sent = 0
        try:
            async for piece in body:
                if not piece:
                    continue
                sent += len(piece)
                if length is None:
                    transport.writelines((b"%x\r\n" % len(piece), piece, b"\r\n"))
                elif sent <= length:
                    transport.write(piece)
                else:
                    raise ValueError("the body is longer than its length")
                if connection.write_paused:
                    if self._timeout is not None:
                        self._expect(self._timeout)
                    await connection.writable()
                    self.deadline = 0.0  # from here it is the client who is slow
            if length is None:
                transport.write(b"0\r\n\r\n")
            elif sent < length:
                raise ValueError("the body is shorter than its length")
        except Exception as error:
            self._task = None
            failure = UploadFailed("the request body could not be read to its end")
            failure.__cause__ = error
            self.failed(failure)
        else:
            self._task = None
            if self._timeout is not None and not connection.head_seen:
                self._expect(self._timeout)
        finally:
            if (aclose := getattr(body, "aclose", None)) is not None:
                await aclose()

    async def _send_again(self, head: bytes, body: bytes | None) -> None:
        try:
            connection = await self._pool.connect()
        except UpstreamError as error:
            self._task = None
            self.failed(error)
            return
        finally:
            self._pool.reconnecting.discard(self)
        self._task = None
        self._write(connection, head, body)

    # --- called by the connection ----------------------------------------------------------

    def answer_began(self) -> None:
        """The first byte of an answer is here: the request won't be needed again."""
        self.answered = True
        self._head = b""
        self._body = None

    def request_taken(self) -> None:
        """The write buffer has emptied: the time for the head counts from here."""
        if self.deadline and self._timeout is not None:
            self._expect(self._timeout)

    def completed(self, *, reusable: bool) -> None:
        """The answer is complete."""
        connection = self._connection
        if connection is not None and (
            self._task is not None or connection.transport.get_write_buffer_size()
        ):
            reusable = False  # the backend answered before it had read the request
        sink = self._end(reusable=reusable)
        if sink is not None:
            try:
                sink.on_end()
            except Exception as error:
                self._report(error)

    def failed(self, error: UpstreamError) -> None:
        """The exchange ends with ``error``."""
        sink = self._end(reusable=False)
        if sink is not None:
            try:
                sink.on_error(error)
            except Exception as raised:
                self._report(raised)

    def sink_raised(self, error: Exception) -> None:
        """The sink raised ``error`` from ``on_head`` or ``on_body``."""
        self._report(error)
        self.failed(SinkFailed(f"relaying the answer of {self._pool.name} failed"))

    def lost(self, reason: str) -> None:
        """The connection ended before the answer did."""
        connection = self._connection
        if connection is None:
            return
        head = self._head
        if head and not self.answered:
            body = self._body
            self._head, self._body = b"", None
            self._connection = None
            self.deadline = 0.0
            connection.release()
            connection.abort()
            self._pool.reconnecting.add(self)
            self._task = spawn(
                self._send_again(head, body), name=f"send again to {self._pool.name}"
            )
            return
        when = "in the middle of its answer" if connection.head_seen else "before it answered"
        self.failed(
            ConnectionLost(
                f"{self._pool.name} went away {when}: {reason}",
                before_head=not connection.head_seen,
            )
        )

    def timed_out(self) -> None:
        """The head didn't come in time."""
        self.failed(HeadTimeout(f"{self._pool.name} sent no answer within {self._timeout:g} s"))

    def _report(self, error: Exception) -> None:
        self._pool.loop.call_exception_handler(
            {"message": f"sink of an exchange with {self._pool.name} raised", "exception": error}
        )

    def _end(self, *, reusable: bool) -> ResponseSink | None:
        """Let go of everything, once; the sink to be told, or None if it had ended before."""
        sink = self._sink
        if sink is None:
            return None
        self._sink = None
        self._head = b""
        self._body = None
        if self._task is not None:
            self._task.cancel()
            self._task = None
        connection = self._connection
        if connection is not None:
            self._connection = None
            connection.release()
            if not reusable or not connection.usable:
                connection.abort()
                connection = None
            elif self._paused:
                connection.transport.resume_reading()
        self._pool.give_back(connection)
        return sink


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
    ) -> Exchange:
        """Send a request; everything about its answer goes to ``sink``.

        Returns when the request is written, or handed to a task that streams it. Raises
        ConnectFailed, ConnectTimeout or ConnectionLost where no connection is to be had (the sink
        then hears nothing); waits while ``max_connections`` exchanges are under way.

        ``headers``: pairs, or ready lines each ending in CRLF, without the framing: Content-Length
        or Transfer-Encoding are written here (and dropped from pairs). A streamed body goes out
        with ``body_length`` as its Content-Length, chunked if that is None; it is never sent
        twice. ``head_timeout``: seconds without any progress, up to the head of the answer, that
        the backend may take, not counting those that a streamed body is waited for.
        """
        if self._closed:
            raise ConnectFailed(f"{self.name} is shut down")
        if self._busy < self._max:
            self._busy += 1
        else:
            await self._wait_for_place()
        return await self._send(
            method, target, headers, body, sink, body_length=body_length, timeout=head_timeout
        )

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
        if self._closed:
            raise ConnectFailed(f"{self.name} is shut down")
        sink = _Collector(self.loop.create_future(), max_body, self.name)
        exchange: Exchange | None = None
        try:
            async with asyncio.timeout(timeout):
                self._busy += 1
                exchange = await self._send(
                    method, target, headers, body, sink, body_length=None, timeout=None
                )
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
                if self._timer is None:
                    self.wake_at(now + self._max_idle)
        waiters = self._waiters
        while waiters and self._busy < self._max:
            waiter = waiters.popleft()
            if not waiter.done():
                self._busy += 1
                waiter.set_result(None)

    # --- connections -----------------------------------------------------------------------

    async def _send(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] | bytes,
        body: bytes | AsyncIterable[bytes] | None,
        sink: ResponseSink,
        *,
        body_length: int | None,
        timeout: float | None,
    ) -> Exchange:
        """``send`` for one who has a place; gives it back if there is no exchange to hold it."""
        try:
            lines = headers if isinstance(headers, bytes) else _header_lines(headers)
            streamed = body is not None and not isinstance(body, bytes)
            if body is None:
                framing = b"" if method in _NO_BODY else b"Content-Length: 0\r\n"
            elif not streamed:
                framing = b"Content-Length: %d\r\n" % len(body)  # type: ignore[arg-type]
            elif body_length is not None:
                framing = b"Content-Length: %d\r\n" % body_length
            else:
                framing = b"Transfer-Encoding: chunked\r\n"
            if not _is_target(target) or not method.isalpha():
                raise ValueError("not a request line")
            head = b"%b %b HTTP/1.1\r\n%b%b\r\n" % (
                method.encode(),
                target.encode(),
                lines,
                framing,
            )
            connection = None if streamed else self._take_idle()
            if connection is None:
                connection = await self.connect()
        except BaseException:
            self.give_back(None)
            raise
        exchange = Exchange(self, sink, bodyless=method == "HEAD", timeout=timeout)
        try:
            if streamed:
                exchange.start_upload(connection, head, body, body_length)  # type: ignore[arg-type]
            else:
                if body and len(body) < _JOIN_BELOW:  # type: ignore[arg-type]
                    head, body = head + body, None  # type: ignore[operator]
                exchange.start(connection, head, body or None)  # type: ignore[arg-type]
        except BaseException:
            exchange.abort()
            raise
        return exchange

    def _take_idle(self) -> Connection | None:
        idle = self._idle
        if not idle:
            return None
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
        return connection

    async def _connect(self, connection: Connection) -> None:
        address = self._address
        if isinstance(address, TcpAddress):
            await self.loop.create_connection(
                lambda: connection, address.host, address.port, ssl=address.ssl_context
            )
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

    def connection_opened(self, connection: Connection) -> None:
        """The connection is up."""
        self._open.add(connection)

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


_NO_BODY = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
_FRAMING = frozenset({"content-length", "transfer-encoding"})


def _is_target(target: str) -> bool:
    """Whether it can stand in a request line: no space, nothing that ends the line."""
    return target.isascii() and target.isprintable() and " " not in target and target != ""


def _header_lines(headers: Iterable[tuple[str, str]]) -> bytes:
    lines = []
    for name, value in headers:
        line = f"{name}: {value}"
        if "\r" in line or "\n" in line or "\0" in line or ":" in name:
            raise ValueError(f"not a header: {name!r}")
        if name.lower() not in _FRAMING:
            lines.append(line + "\r\n")
    return "".join(lines).encode("latin-1")
