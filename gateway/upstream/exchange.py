"""One request to a backend and its answer: sent, sent again if need be, ended exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import Protocol

from gateway.tasks import spawn
from gateway.upstream.answer import (
    ChunkForwarder,
    ConnectionLost,
    HeadTimeout,
    ResponseSink,
    SinkFailed,
    UploadFailed,
    UpstreamError,
)
from gateway.upstream.connection import Connection


class ExchangeOwner(Protocol):
    """The pool, as far as an exchange knows it."""

    name: str
    loop: asyncio.AbstractEventLoop
    reconnecting: set[Exchange]

    async def connect(self) -> Connection:
        """A fresh connection."""

    def give_back(self, connection: Connection | None) -> None:
        """The exchange has ended; ``connection``: reusable."""

    def wake_at(self, when: float) -> None:
        """Look at deadlines at loop time ``when``, or before."""


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
        self, pool: ExchangeOwner, sink: ResponseSink, bodyless: bool, timeout: float | None
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

    def pass_chunks(self, forwarder: ChunkForwarder) -> None:
        """From now on chunks of a chunked answer may go to ``forwarder`` as they came.

        Each is one whole chunk: size (RFC 9112, 7.1; at most three hexadecimal digits), data and
        line ends. What comes in other pieces goes to the sink's ``on_body`` as before, in order.
        Nobody looks here whether the client takes it in: its transport tells its protocol.
        """
        if self._connection is not None:
            self._connection.pass_chunks(forwarder)

    def abort(self) -> None:
        """Close the connection at once; no callback comes any more."""
        self._end(reusable=False)

    # --- called by the pool ----------------------------------------------------------------

    def start(self, connection: Connection, head: bytes, body: bytes | None) -> None:
        """Write the request: ``head``, with a small body behind it, and then a big ``body``."""
        sink = self._sink
        assert sink is not None
        self._connection = connection
        connection.begin(self, sink, self._bodyless)
        transport = connection.transport
        transport.write(head)
        if body is not None:
            transport.write(body)
        if self._timeout is not None:
            self._expect(self._timeout)
        if connection.reused:
            self._head, self._body = head, body  # in case the connection turns out to be dead
        if self._paused:
            transport.pause_reading()

    def start_upload(
        self, connection: Connection, head: bytes, body: AsyncIterable[bytes], length: int | None
    ) -> None:
        """Send the head, and then the body as it comes."""
        sink = self._sink
        assert sink is not None
        self._connection = connection
        connection.begin(self, sink, self._bodyless)
        connection.transport.write(head)
        self._task = spawn(
            self._upload(connection, body, length), name=f"upload to {self._pool.name}"
        )

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
                if transport.is_closing():
                    return  # connection_lost is on its way, and says what there is to say
                sent += len(piece)
                if length is None:
                    # Never writelines(): asyncio's own of 3.12 and 3.13.0 neither pauses its
                    # protocol nor bounds what it holds (CVE-2024-12254).
                    transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
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
            error.sent = True
            self.failed(error)
            return
        finally:
            self._pool.reconnecting.discard(self)
        self._task = None
        self.start(connection, head, body)

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
