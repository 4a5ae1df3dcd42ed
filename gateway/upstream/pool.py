"""The pooled HTTP/1.1 client that relays to llama-server, over Unix sockets and TCP.

Made for one job at the least CPU cost: see :mod:`gateway.upstream.connection` for how an answer
comes back. llama-server (cpp-httplib) closes a connection after 5 s without a request and after
100 requests, so that a pooled connection dies between two requests is normal: a request that got
not one byte of answer on a reused connection is sent again, once, on a fresh one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Protocol

from gateway.upstream.address import TcpAddress, UnixAddress, connect
from gateway.upstream.answer import ResponseSink
from gateway.upstream.connection import Connection, connection_class
from gateway.upstream.errors import ConnectFailed, ConnectionLost, ConnectTimeout, HeadTimeout
from gateway.upstream.exchange import Exchange
from gateway.upstream.fetched import MAX_BODY, Collector, Fetched
from gateway.upstream.head_cache import HeadCache
from gateway.upstream.request import UpstreamRequest, host_line_of, serialised

_TIMER_SLACK = 0.002  # seconds: uvloop's timers are in whole milliseconds


class Upstream(Protocol):
    """A target of requests. :class:`UpstreamPool` says what is expected of it."""

    @property
    def exchanges(self) -> int:
        """The number of exchanges under way."""

    async def send(self, request: UpstreamRequest, sink: ResponseSink) -> Exchange:
        """Send a request; everything about its answer goes to ``sink``."""

    async def fetch(
        self, request: UpstreamRequest, *, timeout: float, max_body: int = MAX_BODY
    ) -> Fetched:
        """Return a whole small answer, without waiting for a place."""


class UpstreamPool:
    """A pool of connections to one backend: at most ``max_connections``, the last used one taken
    first.

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
        silent_is_gone: bool = False,
        name: str,
    ) -> None:
        """``silent_is_gone``: who accepts no connection in time counts as one that refuses it, as
        a machine that has gone does.
        """
        self.name = name
        self.loop = asyncio.get_running_loop()
        self.read_buffer = memoryview(bytearray(64 * 1024))
        self._connection_class = connection_class(self.loop)
        self._address = address
        self.host_line = host_line_of(address)
        self.heads = HeadCache()
        self._max = max_connections
        self._max_idle = max_idle_seconds
        self._connect_timeout = connect_timeout
        self._too_late = ConnectFailed if silent_is_gone else ConnectTimeout
        self._busy = 0  # exchanges that have not ended, each with its place
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._idle: list[Connection] = []  # the last used one last
        self._open: set[Connection] = set()
        self._connecting: set[asyncio.Timeout] = set()
        self.reconnecting: set[Exchange] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._closed = False
        self._all_closed: asyncio.Future[None] | None = None

    @property
    def exchanges(self) -> int:
        """The number of exchanges under way."""
        return self._busy

    async def send(
        self, request: UpstreamRequest, sink: ResponseSink, *, queue: bool = True
    ) -> Exchange:
        """Send a request; everything about its answer goes to ``sink``.

        Returns when the request is written, or handed to a task that streams it. Raises
        ConnectFailed, ConnectTimeout or ConnectionLost where no connection is to be had (the sink
        then hears nothing). Waits while ``max_connections`` exchanges are under way, unless
        ``queue`` is false.
        """
        if self._closed:
            raise ConnectFailed(f"{self.name} is shut down")
        if self._busy < self._max or not queue:
            self._busy += 1
        else:
            await self._wait_for_place()
        exchange = Exchange(self, request, sink)
        try:
            head, rest = serialised(request, self.host_line)
            if self._idle and (rest is None or isinstance(rest, bytes)):
                connection = self._idle.pop()
                if self.loop.time() - connection.idle_since > self._max_idle:
                    # The last used one is too old, so all are; the timer is about to say so.
                    self._idle.append(connection)
                    self._close_idle(len(self._idle))
                    connection = await self.connect()
            else:
                connection = await self.connect()
            exchange.start(connection, head, rest)
        except BaseException:
            exchange.abort()
            raise
        return exchange

    async def fetch(
        self, request: UpstreamRequest, *, timeout: float, max_body: int = MAX_BODY
    ) -> Fetched:
        """Return a whole small answer, for /health, /slots and /props.

        It doesn't wait for a place: a busy backend must still be able to show that it is alive.
        ``timeout`` is for all of it. Raises UpstreamError.
        """
        sink = Collector(self.loop.create_future(), max_body, self.name)
        exchange: Exchange | None = None
        try:
            async with asyncio.timeout(timeout):
                exchange = await self.send(request, sink, queue=False)
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
        for deadline in self._connecting:
            deadline.reschedule(0.0)
        self.abort_all()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._open:
            if self._all_closed is None:
                self._all_closed = self.loop.create_future()
            await asyncio.shield(self._all_closed)

    async def drained(self) -> None:
        """Return when no exchange is under way, and none has begun since: all places are taken."""
        taken = 0
        try:
            while taken < self._max:
                if self._busy < self._max:
                    self._busy += 1
                else:
                    await self._wait_for_place()
                taken += 1
        finally:
            for _ in range(taken):
                self.give_back(None)

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
        """Take back the place of an exchange that has ended, and its ``connection``, if
        reusable.
        """
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

    def _close_idle(self, count: int) -> None:
        """Close the ``count`` connections that have been idle longest."""
        expired = self._idle[:count]
        del self._idle[:count]
        for connection in expired:
            connection.abort()

    async def connect(self) -> Connection:
        """Return a fresh connection. Raises ConnectFailed, ConnectTimeout, ConnectionLost."""
        excess = self._busy + len(self._idle) - self._max
        if excess > 0:
            self._close_idle(excess)
        connection = self._connection_class(self)
        deadline = asyncio.timeout(self._connect_timeout)
        try:
            async with deadline:
                self._connecting.add(deadline)
                await connect(self._address, connection)
        except TimeoutError:
            if self._closed:
                raise ConnectFailed(f"{self.name} is shut down") from None
            raise self._too_late(
                f"{self.name} accepted no connection within {self._connect_timeout:g} s"
            ) from None
        except OSError as error:
            raise ConnectFailed(f"cannot connect to {self.name}: {error}") from error
        finally:
            self._connecting.discard(deadline)
        if self._closed:
            connection.abort()
            raise ConnectFailed(f"{self.name} is shut down")
        if not connection.usable:
            raise ConnectionLost(
                f"{self.name} closed a new connection at once", before_head=True, unprocessed=True
            )
        self._open.add(
            connection
        )  # not before: uvloop doesn't report one that it gave up half made
        return connection

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

        One timer serves all: a timer per request would cost more than parsing the request.
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
