"""One connection to a backend: owns the transport, and reads answers from it for exchanges.

There is no StreamReader, no task and no await between the socket and the sink: what the event loop
calls is the reader's own method. :mod:`gateway.upstream.pool` owns the connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Protocol

from gateway.http.flow_control import FlowControl
from gateway.upstream.answer import ResponseSink
from gateway.upstream.chunks import ChunkForwarder
from gateway.upstream.head_cache import HeadCache
from gateway.upstream.reader import MAX_HEAD, AnswerReader, Receiver


class Owner(Receiver, Protocol):
    """The exchange that a connection works for."""

    def request_taken(self) -> None:
        """The write buffer has emptied."""


class ConnectionOwner(Protocol):
    """The pool, as far as a connection knows it."""

    name: str
    read_buffer: memoryview
    heads: HeadCache

    def connection_ended(self, connection: Connection) -> None:
        """The connection is of no more use, and may be closed already."""

    def connection_closed(self, connection: Connection) -> None:
        """The socket is closed."""


class Connection(asyncio.Protocol):
    """A transport that carries one exchange after another, and the reader of its answers."""

    __slots__ = (
        "_pool",
        "_reader",
        "_transport",
        "data_received",
        "flow",
        "idle_since",
        "reused",
        "usable",
    )

    _transport: asyncio.Transport
    #: The reader's own method, so that the event loop calls it directly.
    data_received: Callable[[bytes], None]  # type: ignore[assignment]  # data comes by position

    def __init__(self, pool: ConnectionOwner) -> None:
        self._pool = pool
        self._reader: AnswerReader[Owner] = AnswerReader(pool.name, pool.heads, self._end_idle)
        self.data_received = self._reader.feed
        self.usable = False  # connected, and no reason yet to close it
        self.reused = False
        self.idle_since = 0.0
        #: The back-pressure of the transport, for the request's body.
        self.flow = FlowControl()

    # --- for exchanges ---------------------------------------------------------------------

    @property
    def exchange(self) -> Owner | None:
        """The exchange whose answer it waits for."""
        return self._reader.receiver

    @property
    def head_seen(self) -> bool:
        """Whether the sink has been given a head."""
        return self._reader.head_seen

    @property
    def closing(self) -> bool:
        """Whether the transport is closing, so that nothing written would arrive."""
        return self._transport.is_closing()

    def begin(self, exchange: Owner, sink: ResponseSink, head: bytes, bodyless: bool) -> None:
        """Write the head of a request; what comes goes to ``sink``.

        ``bodyless``: the answer ends with its head (HEAD), whatever length it names.
        """
        self._reader.expect(exchange, sink, bodyless)
        self._transport.write(head)

    def write(self, data: bytes) -> None:
        """Write more of the request."""
        # Never writelines(): asyncio's own of 3.12 and 3.13.0 neither pauses its protocol nor
        # bounds what it holds (CVE-2024-12254).
        self._transport.write(data)

    def pause(self) -> None:
        """Stop reading for now."""
        if self.usable:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Resume reading."""
        if self.usable:
            self._transport.resume_reading()

    def pass_chunks(self, forwarder: ChunkForwarder) -> None:
        """Write whole chunks to ``forwarder``, not to the sink: see ``Exchange``."""
        self._reader.pass_chunks(forwarder)

    def release(self, *, reusable: bool) -> bool:
        """End the exchange: nothing more reaches its sink.

        Returns whether another exchange may use the connection. Otherwise it is closed at once, and
        unwritten data is dropped. ``reusable``: whether the exchange allows that.
        """
        self._reader.release()
        # If something is still to be written, the backend answered before it had all of it.
        if reusable and self.usable and not self._transport.get_write_buffer_size():
            return True
        self.abort()
        return False

    def abort(self) -> None:
        """Close at once; what is not yet written is thrown away."""
        self.usable = False
        self._transport.abort()

    # --- transport events ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a Protocol gets a Transport
        self.usable = True

    def eof_received(self) -> None:
        self._reader.feed_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self._pool.connection_ended(self)
        if exc is not None and self.exchange is not None:
            self._read_the_rest()
        exchange = self.exchange
        if exchange is not None:
            exchange.lost(f"{exc}" if exc else "the connection was closed")
        self.flow.end()
        self._reader.close()
        self._pool.connection_closed(self)

    def pause_writing(self) -> None:
        self.flow.pause()

    def resume_writing(self) -> None:
        self.flow.resume()
        exchange = self.exchange
        if exchange is not None:
            exchange.request_taken()

    def _read_the_rest(self) -> None:
        """Take what the backend had sent before a write to it failed.

        A backend that refuses an upload answers 413 and closes. If we write before we have read
        that, the loop gives up the connection, and the answer with it. But the socket is open until
        ``connection_lost`` returns.
        """
        sock = self._transport.get_extra_info("socket")
        if sock is None or self._transport.get_extra_info("sslcontext") is not None:
            return
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(sock.fileno())) as rest:
            rest.setblocking(False)
            # No data is no clean end: the socket's error has been taken from it by now.
            while self.exchange is not None and (data := rest.recv(MAX_HEAD)):
                self.data_received(data)

    def _end_idle(self) -> None:
        self._pool.connection_ended(self)
        self.abort()


class BufferedConnection(Connection, asyncio.BufferedProtocol):
    """The same for asyncio's own loop, reading into one buffer for all connections of a pool.

    asyncio allocates 256 KiB for each read of a plain Protocol: measured at 40 us a read against
    13 us with this. uvloop reads into a buffer of its own, and there this costs 0.5 us more. The
    buffer can be shared because httptools copies what it hands out before the next read.
    """

    __slots__ = ()

    def pass_chunks(self, forwarder: ChunkForwarder) -> None:
        """Do nothing: here, what is read is not ``bytes``, and is gone with the next read."""

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._pool.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(self._pool.read_buffer[:nbytes])  # type: ignore[arg-type]


def connection_class(loop: asyncio.AbstractEventLoop) -> type[Connection]:
    """Return the kind of connection that is cheapest on ``loop``."""
    return BufferedConnection if isinstance(loop, asyncio.BaseEventLoop) else Connection
