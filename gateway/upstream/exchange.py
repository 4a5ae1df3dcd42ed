"""One request to a backend and its answer: sent, sent again if need be, ended exactly once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable
from typing import Protocol

from gateway.tasks import spawn
from gateway.upstream.answer import ResponseSink
from gateway.upstream.chunks import ChunkForwarder
from gateway.upstream.connection import Connection
from gateway.upstream.errors import (
    ConnectionLost,
    HeadTimeout,
    SinkFailed,
    UploadFailed,
    UpstreamError,
)
from gateway.upstream.request import UpstreamRequest, serialised
from gateway.upstream.retry import may_retry


class ExchangeOwner(Protocol):
    """The pool, as far as an exchange knows it."""

    name: str
    host_line: str
    loop: asyncio.AbstractEventLoop
    reconnecting: set[Exchange]

    async def connect(self) -> Connection:
        """Return a fresh connection."""

    def give_back(self, connection: Connection | None) -> None:
        """The exchange has ended; ``connection``: reusable."""

    def wake_at(self, when: float) -> None:
        """Look at deadlines at loop time ``when``, or before."""


class Exchange:
    """One request and its answer. It holds one place in its pool until it ends."""

    __slots__ = (
        "_connection",
        "_paused",
        "_pool",
        "_request",
        "_sink",
        "_task",
        "_timeout",
        "answered",
        "deadline",
    )

    def __init__(self, pool: ExchangeOwner, request: UpstreamRequest, sink: ResponseSink) -> None:
        self._pool = pool
        #: The request, kept until the first byte of the answer: prompts are long, and answers take
        #: minutes.
        self._request: UpstreamRequest | None = request
        self._timeout = request.head_timeout
        self._sink: ResponseSink | None = sink  # None: ended
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None  # uploads, or connects once more
        self._paused = False
        self.answered = False  # a byte of answer came
        self.deadline = 0.0  # loop time until which the head must be here; 0: none

    def pause(self) -> None:
        """Stop reading the answer. What was read already still comes, at most one read."""
        self._paused = True
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Go on reading."""
        self._paused = False
        if self._connection is not None:
            self._connection.resume()

    def pass_chunks(self, forwarder: ChunkForwarder) -> None:
        """Let chunks of a chunked answer go to ``forwarder`` as they came, from now on.

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

    def start(
        self, connection: Connection, head: bytes, rest: bytes | AsyncIterable[bytes] | None
    ) -> None:
        """Write the request: ``head``, and the ``rest`` of its body at once, or as it comes."""
        sink, request = self._sink, self._request
        assert sink is not None
        assert request is not None
        self._connection = connection
        connection.begin(self, sink, head, request.method == "HEAD")
        if rest is not None and not isinstance(rest, bytes):
            self._task = spawn(
                self._upload(connection, rest, request.body_length),
                name=f"upload to {self._pool.name}",
            )
            return
        if rest is not None:
            connection.write(rest)
        if self._timeout is not None:
            self._expect_head()
        if self._paused:
            connection.pause()

    def _expect_head(self) -> None:
        """Count the time for the head from now, if it is limited."""
        if self._timeout is not None:
            self.deadline = deadline = self._pool.loop.time() + self._timeout
            self._pool.wake_at(deadline)

    async def _upload(
        self, connection: Connection, body: AsyncIterable[bytes], length: int | None
    ) -> None:
        sent = 0
        try:
            async for piece in body:
                if not piece:
                    continue
                if connection.closing:
                    return  # connection_lost is on its way, and says what there is to say
                sent += len(piece)
                if length is None:
                    connection.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                elif sent <= length:
                    connection.write(piece)
                else:
                    raise ValueError("the body is longer than its length")
                if connection.flow.full:
                    self._expect_head()
                    with contextlib.suppress(ConnectionResetError):  # it reports what is lost
                        await connection.flow.drain()
                    self.deadline = 0.0  # from here on, only the client can be slow
            if length is None:
                connection.write(b"0\r\n\r\n")
            elif sent < length:
                raise ValueError("the body is shorter than its length")
        except Exception as error:
            self._task = None
            failure = UploadFailed("the request body could not be read to its end")
            failure.__cause__ = error
            self.failed(failure)
        else:
            self._task = None
            if not connection.head_seen:
                self._expect_head()
        finally:
            if (aclose := getattr(body, "aclose", None)) is not None:
                await aclose()

    async def _send_again(self) -> None:
        """Send it on a connection that nobody can have closed for having been idle."""
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
        assert self._request is not None
        self.start(connection, *serialised(self._request, self._pool.host_line))

    # --- called by the connection ----------------------------------------------------------

    def answer_began(self) -> None:
        """The first byte of an answer is here: the request won't be needed again."""
        self.answered = True
        self._request = None

    def request_taken(self) -> None:
        """The write buffer has emptied: the time for the head counts from here."""
        if self.deadline:
            self._expect_head()

    def completed(self, *, reusable: bool) -> None:
        """The answer is complete."""
        # A task: the backend answered before it had read the request.
        sink = self._end(reusable=reusable and self._task is None)
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
        when = "in the middle of its answer" if connection.head_seen else "before it answered"
        error = ConnectionLost(
            f"{self._pool.name} went away {when}: {reason}",
            before_head=not connection.head_seen,
            # Closed while idle, at the moment in which it was used again (RFC 9112, 9.3.1).
            unprocessed=connection.reused and not self.answered,
        )
        if self._request is None or not may_retry(error, body_at_hand=self._request.body_is_here):
            self.failed(error)
            return
        self._connection = None
        self.deadline = 0.0
        connection.release(reusable=False)
        self._pool.reconnecting.add(self)
        self._task = spawn(self._send_again(), name=f"send again to {self._pool.name}")

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
        self._sink = self._request = None
        if self._task is not None:
            self._task.cancel()
            self._task = None
        connection = self._connection
        if connection is not None:
            self._connection = None
            if not connection.release(reusable=reusable):
                connection = None
            elif self._paused:
                connection.resume()
        self._pool.give_back(connection)
        return sink
