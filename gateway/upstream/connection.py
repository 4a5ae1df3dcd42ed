"""One connection to a backend: bytes in, callbacks of a :class:`ResponseSink` out.

HTTP/1.1 answers (RFC 9112) are parsed by llhttp through httptools as they arrive. There is no
StreamReader, no task and no await between the socket and the sink. A streamed token, which comes
as one chunk in one read, isn't parsed at all where the sink wants chunks as they are: it costs one
look at its length. :mod:`gateway.upstream` owns the connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import Any, NoReturn, Protocol

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade
from httptools import HttpResponseParser as _Parser

from gateway.upstream.answer import (
    ChunkForwarder,
    ProtocolError,
    ResponseHead,
    ResponseSink,
    UpstreamError,
)
from gateway.upstream.head_cache import CachedHead, recognise, remember

MAX_HEAD = 64 * 1024  # bytes of head, or of anything else that is not body, in one piece


class Owner(Protocol):
    """The exchange that a connection works for."""

    answered: bool

    def answer_began(self) -> None:
        """The first byte of an answer is here: the request won't be needed again."""

    def completed(self, *, reusable: bool) -> None:
        """The answer is complete; ``reusable`` as far as the answer goes."""

    def failed(self, error: UpstreamError) -> None:
        """The answer is no good."""

    def sink_raised(self, error: Exception) -> None:
        """The sink raised ``error`` from ``on_head`` or ``on_body``."""

    def lost(self, reason: str) -> None:
        """The connection ended before the answer did."""

    def request_taken(self) -> None:
        """The write buffer has emptied."""


class ConnectionOwner(Protocol):
    """The pool, as far as a connection knows it."""

    name: str
    read_buffer: memoryview

    def connection_ended(self, connection: Connection) -> None:
        """The connection is of no more use, and may be closed already."""

    def connection_closed(self, connection: Connection) -> None:
        """The socket is closed."""


def _ignore(data: bytes) -> None:
    """Takes the place of ``on_body`` when nobody wants the rest."""


_CRLF = b"\r\n"
#: Bytes in all. Longer ones are parsed, and shorter ones: those that end a stream, which mustn't
#: take the place of the last chunk that says something.
_LONGEST_CHUNK, _SHORTEST_CHUNK = 4096, 64
#: How a whole chunk of so many bytes begins: with its size, as servers write it (lower case, no
#: zeros before it), and a line end; and where that is. Known for lengths that were met.
_beginnings = [b"?"] * _LONGEST_CHUNK
_of_beginnings = [slice(0)] * _LONGEST_CHUNK
_ENDING = slice(-2, None)


def _remember_chunk(data: bytes) -> None:
    """Know ``data``'s like again, if it is one whole chunk."""
    size, _, rest = data.partition(_CRLF)
    if _SHORTEST_CHUNK <= len(data) < _LONGEST_CHUNK and size == b"%x" % (len(rest) - len(_CRLF)):
        beginning = size + _CRLF
        _beginnings[len(data)] = beginning
        _of_beginnings[len(data)] = slice(len(beginning))


_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


class Connection(asyncio.Protocol):
    """A transport and a parser that serve one exchange after another.

    The methods called ``on_...`` are httptools' callbacks. They run inside ``_feed``, so none of
    them hands the connection to anybody else: ``data_received`` does, after the parser returned.
    """

    __slots__ = (
        "_between_chunks",
        "_body_taker",
        "_bodyless",
        "_cached_head",
        "_chunk_forwarder",
        "_complete",
        "_feed",
        "_forwarder",
        "_head",
        "_headers",
        "_informational",
        "_keep_alive",
        "_parser",
        "_pieces",
        "_pool",
        "_quiet",
        "_remaining",
        "_sink",
        "_sink_error",
        "_until_close",
        "_untouched",
        "_writable",
        "exchange",
        "idle_since",
        "on_body",
        "reused",
        "transport",
        "usable",
        "write_paused",
    )

    transport: asyncio.Transport

    def __init__(self, pool: ConnectionOwner) -> None:
        self._pool = pool
        self.exchange: Owner | None = None
        self.usable = False  # connected, and no reason yet to close it
        self.reused = False
        self.idle_since = 0.0
        self.write_paused = False
        self._writable: asyncio.Future[None] | None = None
        #: What one read brought of a body. The parser appends to it without a call of ours.
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append
        self._parser: Any = _Parser(self)
        self._feed: Any = self._parser.feed_data
        self._complete = False
        #: The head of the last answer: most likely the next one's.
        self._cached_head: CachedHead | None = None
        #: Gets the next read if that is a whole chunk: the parser stands between two.
        self._forwarder: ChunkForwarder | None = None

    def begin(self, exchange: Owner, sink: ResponseSink, bodyless: bool) -> None:
        """Get ready for the answer to the request about to be written.

        ``bodyless``: the answer ends with its head (HEAD), whatever length it names.
        """
        self.exchange = exchange
        self._sink: ResponseSink | None = sink
        self._body_taker: Any = sink.on_body
        self._bodyless = bodyless
        self._headers: list[tuple[bytes, bytes]] | None = []
        self._quiet = 0
        self._complete = False
        self._keep_alive = True  # until something says otherwise
        self._informational = self._until_close = False
        self._head: ResponseHead | None = None
        self._untouched = True  # nothing of the answer is here
        self._remaining = 0  # bytes of a body that the parser doesn't see
        self._between_chunks = False
        self._chunk_forwarder: ChunkForwarder | None = None
        self._sink_error: Exception | None = None

    def release(self) -> None:
        """The exchange is over: no callback reaches its sink from here on."""
        self.exchange = self._sink = None
        self._body_taker = _ignore
        self._chunk_forwarder = self._forwarder = None

    def pass_chunks(self, forwarder: ChunkForwarder) -> None:
        """Write whole chunks to ``forwarder``, not to the sink: see ``Exchange``."""
        self._chunk_forwarder = forwarder

    @property
    def head_seen(self) -> bool:
        """Whether the sink has been given a head."""
        return self._headers is None

    async def writable(self) -> None:
        """Wait until the transport takes more, or the connection ends."""
        if self.write_paused and self.usable:
            self._writable = asyncio.get_running_loop().create_future()
            try:
                await self._writable
            finally:
                self._writable = None

    def abort(self) -> None:
        """Close at once; what is not yet written is thrown away."""
        self.usable = False
        self.transport.abort()

    # --- transport events ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a Protocol gets a Transport
        self.usable = True

    def data_received(self, data: bytes) -> None:
        forwarder = self._forwarder
        if forwarder is not None:
            # The parser may miss it: after a whole chunk it stands where it stood before.
            length = len(data)
            if (
                length < _LONGEST_CHUNK
                and data[_of_beginnings[length]] == _beginnings[length]
                and data[_ENDING] == _CRLF
            ):
                forwarder.before, forwarder.last = forwarder.last, data
                forwarder.chunks += 1
                write = forwarder.write  # as a method call it would be looked up in the class first
                try:
                    write(data)
                except RuntimeError:
                    return  # closed: who relays is about to hear of it
                return
            forwarder.flush()
            self._forwarder = None
        exchange = self.exchange
        if exchange is None:
            # Bytes nobody asked for would be taken as the answer to the next request.
            self._end_idle()
            return
        if not exchange.answered:
            exchange.answer_began()
        if self._remaining:
            self._take_body(exchange, data)
            return
        untouched = self._untouched
        if untouched:
            self._untouched = False
            if type(data) is bytes and not self._bodyless and self._take_cached(exchange, data):
                return
        self._quiet += len(data)
        try:
            self._feed(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if not self._complete:
                self._deliver(exchange)
                self._give_up(exchange, error)
                return
            self._keep_alive = False  # more than the answer came: not a connection to trust
            untouched = False  # and its head may well come again without that
        if untouched and self._head is not None and not self._bodyless and type(data) is bytes:
            keep_alive = self._keep_alive if self._complete else self._parser.should_keep_alive()
            remember(data, self._head, keep_alive=keep_alive)
        if self._pieces and not self._deliver(exchange):
            return
        if self._complete:
            exchange.completed(reusable=self._keep_alive)
        elif self._quiet > MAX_HEAD:
            what = "trailer or chunk header" if self.head_seen else "head"
            exchange.failed(
                ProtocolError(f"{self._pool.name} sent a {what} of over {MAX_HEAD} bytes")
            )
        elif self._between_chunks and self._chunk_forwarder is not None and data[-2:] == _CRLF:
            self._forwarder = self._chunk_forwarder
            _remember_chunk(data)

    def _take_cached(self, exchange: Owner, data: bytes) -> bool:
        """Take an answer whose head is cached; the parser will see nothing of it."""
        cached = self._cached_head
        found = cached.again(data) if cached is not None else None
        if found is not None and cached is not None:
            length, start = found
        else:
            recognised = recognise(data)
            if recognised is None:
                return False
            cached, length, start = recognised
            self._cached_head = cached
        if len(data) - start > length:
            return False
        self._headers = None
        self._keep_alive = cached.keep_alive
        self._remaining = length
        assert self._sink is not None
        try:
            self._sink.on_head(ResponseHead(cached.status, cached.headers, length))
        except Exception as error:
            exchange.sink_raised(error)
            return True
        if len(data) > start or not length:
            self._take_body(exchange, data[start:])
        return True

    def _take_body(self, exchange: Owner, data: bytes) -> None:
        """Take a read of a body with a length, behind a known head."""
        remaining = self._remaining = self._remaining - len(data)
        if remaining < 0:
            data = data[:remaining]
            self._keep_alive = False  # more than the answer came: not a connection to trust
        if data:
            try:
                self._body_taker(data)
            except Exception as error:
                exchange.sink_raised(error)
                return
        if remaining <= 0 and self.exchange is exchange:
            self._complete = True
            exchange.completed(reusable=self._keep_alive)

    def _deliver(self, exchange: Owner) -> bool:
        """Give the sink what a read brought of the body; whether it took it."""
        pieces = self._pieces
        if not pieces:
            return True
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._quiet = 0
        try:
            self._body_taker(data)
        except Exception as error:
            exchange.sink_raised(error)
            return False
        return True

    def eof_received(self) -> None:
        exchange = self.exchange
        if exchange is None:
            self._end_idle()
        elif self._until_close and not self._complete:
            exchange.completed(reusable=False)
        else:
            exchange.lost("the connection was closed")

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self._pool.connection_ended(self)
        if exc is not None and self.exchange is not None:
            self._read_the_rest()
        exchange = self.exchange
        if exchange is not None:
            exchange.lost(f"{exc}" if exc else "the connection was closed")
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._parser = self._feed = None  # they point back at us
        self._pool.connection_closed(self)

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if self.exchange is not None:
            self.exchange.request_taken()

    def _read_the_rest(self) -> None:
        """Take what the backend had sent before a write to it failed.

        One that refuses an upload answers 413 and closes. If our next write comes before we have
        read that, the loop gives the connection up and the answer with it; the socket, though,
        is open until ``connection_lost`` returns.
        """
        sock = self.transport.get_extra_info("socket")
        if sock is None or self.transport.get_extra_info("sslcontext") is not None:
            return
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(sock.fileno())) as rest:
            rest.setblocking(False)
            # No data is no clean end: the socket's error has been taken from it by now.
            while self.exchange is not None and (data := rest.recv(MAX_HEAD)):
                self.data_received(data)

    def _end_idle(self) -> None:
        self._pool.connection_ended(self)
        self.abort()

    # --- parser callbacks ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            raise ProtocolError("more than one answer")  # seen and dropped by data_received

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headers is not None:  # what comes after the head are trailers: dropped
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        status: int = parser.get_status_code()
        if status < 200:
            if status < 100 or status == 101:
                self._refuse(f"answered with status {status}")
            if any(name.lower() in _FRAMING for name, _ in self._headers or ()):
                self._refuse(f"sent a status {status} with a body")  # llhttp would deliver it
            self._informational = True
            return
        headers = self._headers
        sink = self._sink
        if headers is None or sink is None:
            return  # aborted
        if self._quiet > MAX_HEAD and sum(len(n) + len(v) for n, v in headers) > MAX_HEAD:
            self._refuse(f"sent a head of over {MAX_HEAD} bytes")
        length: int | None = None
        length_at = -1
        codings = 0
        for index, (name, value) in enumerate(headers):
            # llhttp itself refuses two lengths, one that is no number, and one beside a coding.
            size = len(name)
            if size == 14:
                if name.lower() == b"content-length":
                    length, length_at = int(value), index
            elif size == 17 and name.lower() == b"transfer-encoding":
                codings += 1
                if codings > 1 or value.strip().lower() != b"chunked":
                    self._refuse("used a transfer coding that is not plain chunked")
        # How the body ends (RFC 9112, 6.3), in the order in which llhttp decides it.
        if status == 204 or status == 304 or self._bodyless:
            length = 0
        elif length is None and not codings:
            self._until_close = True
        if (codings or not parser.should_keep_alive()) and (
            version := parser.get_http_version()  # not for free, so not for every answer
        ) != "1.1":
            if version != "1.0":
                self._refuse(f"answered in HTTP/{version}")
            self._keep_alive = False
        if length_at >= 0:
            del headers[length_at]
        self._headers = None
        self._quiet = 0
        if self._bodyless:
            # httptools can't tell llhttp to expect no body, so its state is lost with this.
            self._complete = True
            self._keep_alive = False
            self._body_taker = _ignore
        try:
            self._head = head = ResponseHead(status, headers, length)
            sink.on_head(head)
        except Exception as error:
            self._sink_error = error
            raise

    def on_chunk_header(self) -> None:
        self._between_chunks = False

    def on_chunk_complete(self) -> None:
        self._between_chunks = True

    def on_message_complete(self) -> None:
        if self._informational:
            self._informational = False
            self._headers = []
        elif not self._complete:
            self._complete = True
            if not self._parser.should_keep_alive():  # a trailer may have changed it
                self._keep_alive = False

    def _refuse(self, what: str) -> NoReturn:
        raise ProtocolError(f"{self._pool.name} {what}")

    def _give_up(self, exchange: Owner, error: Exception) -> None:
        """End the exchange for an exception that came out of the parser."""
        if self._sink_error is not None:
            exchange.sink_raised(self._sink_error)
            return
        cause = error.__context__ if isinstance(error, HttpParserCallbackError) else None
        if isinstance(cause, ProtocolError):
            exchange.failed(cause)
            return
        # llhttp's messages are fixed texts: nothing of the answer is in them.
        exchange.failed(
            ProtocolError(f"{self._pool.name} sent an answer that is not HTTP/1.1: {error}")
        )
        if cause is not None and not isinstance(cause, Exception):
            raise cause  # KeyboardInterrupt and its like, caught by httptools in a callback


class BufferedConnection(Connection, asyncio.BufferedProtocol):
    """The same for asyncio's own loop, reading into one buffer for all connections of a pool.

    asyncio allocates 256 KiB for each read of a plain Protocol: measured at 40 us a read against
    13 us with this. uvloop reads into a buffer of its own, and there this costs 0.5 us more. The
    buffer can be shared because httptools copies what it hands out before the next read.
    """

    __slots__ = ()

    def pass_chunks(self, forwarder: ChunkForwarder) -> None:
        """Not here: what is read is no ``bytes``, and gone with the next read."""

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._pool.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(self._pool.read_buffer[:nbytes])  # type: ignore[arg-type]


def connection_class(loop: asyncio.AbstractEventLoop) -> type[Connection]:
    """The kind of connection that is cheapest on ``loop``."""
    return BufferedConnection if isinstance(loop, asyncio.BaseEventLoop) else Connection
