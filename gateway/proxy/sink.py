"""The sink of a backend's answer, which passes it on to the client. Awaits nothing.

Kept until it is clear what it is; from then on each piece goes straight to the client's transport,
mended or renamed on the way where that has to be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from gateway.http.response import StartedResponse
from gateway.proxy import headers
from gateway.proxy.call import Mender
from gateway.proxy.sse import Tail
from gateway.streams.kinds import EVENTS
from gateway.upstream import ChunkForwarder, EventTooLong, Exchange, ResponseHead, UpstreamError

#: Answers of a known length up to this are parsed for their usage, and passed on in one piece, head
#: and body together. It is as much as a client that doesn't read may hold in memory. Longer ones
#: are streamed.
_WHOLE = 256 * 1024


class Names(Protocol):
    """A writer of our name for a model into an answer: see :mod:`gateway.proxy.renaming`."""

    def feed(self, data: bytes, /) -> bytes: ...

    def rest(self) -> bytes: ...


def is_stream(head: ResponseHead) -> bool:
    """Return whether an answer is a stream of events that tells of no failure."""
    return head.status < 400 and is_events(head)


def is_events(head: ResponseHead) -> bool:
    """Return whether an answer is a stream of events, as it comes."""
    kind = headers.find(head.headers, b"content-type") or b""
    # Packed by a server that was not asked to, they are bytes like any others.
    return kind[: len(EVENTS)].lower() == EVENTS.encode() and not is_coded(head)


def is_coded(head: ResponseHead) -> bool:
    """Return whether an answer is packed (RFC 9110, 8.4)."""
    return headers.find(head.headers, b"content-encoding") not in (None, b"identity")


def _renaming(
    forwarder: ChunkForwarder, rename: Callable[[bytes], bytes], write: Callable[[bytes], None]
) -> Callable[[bytes], None]:
    """Return what writes whole chunks, each with another name in it, and so of another size."""

    def write_renamed(chunk: bytes) -> None:
        data = rename(chunk[chunk.find(b"\n") + 1 : -2])
        if data:
            forwarder.last = chunk = b"%x\r\n%b\r\n" % (len(data), data)
            write(chunk)
        else:  # part of a line: nothing has gone out
            forwarder.last = b""
            forwarder.flush()

    return write_renamed


class Sink:
    """The sink of one exchange. It keeps what comes until it is told where to send it."""

    __slots__ = (
        "_events",
        "_forwarder",
        "_news",
        "_take",
        "awaits_head",
        "early",
        "ended",
        "error",
        "head",
        "may_stream",
        "paused",
        "whole",
    )

    head: ResponseHead

    def __init__(self) -> None:
        self.awaits_head = False  # its head is reported as soon as it is here
        self.may_stream = False  # a stream was asked for, or may have been
        self.early: list[bytes] = []
        self._events = 0  # of a stream of events, without those that went through:
        self._forwarder: ChunkForwarder | None = None
        self.ended = False
        self.error: UpstreamError | None = None  # why it ended too soon
        self.paused = False  # the client is slower than the backend
        #: Whether the answer is small and of known size, so that it is collected before it is
        #: passed on.
        self.whole = False
        self._take: Callable[[bytes], None] = self._keep
        self._news: asyncio.Future[None] | None = None

    @property
    def events(self) -> int:
        """The number of events of a stream so far; a chunk that was passed unparsed counts as
        one.
        """
        return self._events + (self._forwarder.chunks if self._forwarder is not None else 0)

    def flush(self) -> None:
        """Pass the last pieces on to the tail."""
        if self._forwarder is not None:
            self._forwarder.flush()

    async def headed(self) -> None:
        """Return with its head, where ``awaits_head`` was set before. Raises what went wrong."""
        while self.awaits_head and not self.ended:
            await self.news()
        if self.awaits_head and self.error is not None:
            raise self.error

    async def begun(self) -> None:
        """Return with the first byte of its body, or, of a whole one, with the last.

        Raises what went wrong before.
        """
        while not self.ended and (self.whole or not self.early):
            await self.news()
        if self.error is not None and (self.whole or not self.early):
            raise self.error

    def news(self) -> asyncio.Future[None]:
        """Return a future that is done when the relaying task has something to do."""
        self._news = future = asyncio.get_running_loop().create_future()
        return future

    def on_head(self, head: ResponseHead) -> None:
        self.head = head
        length = head.length
        # An error is read to its end, framed as it may be: it is said again in another shape.
        self.whole = length <= _WHOLE if length is not None else head.status >= 400
        if self.may_stream and self.whole and is_stream(head):
            self.whole = False  # events, though their length is known
        if self.awaits_head:
            self.awaits_head = False
            self._tell()

    def on_body(self, data: bytes) -> None:
        self._take(data)

    def on_end(self) -> None:
        self.ended = True
        self._tell()

    def on_error(self, error: UpstreamError) -> None:
        self.error = error
        self.ended = True
        self._tell()

    def done(self) -> None:
        """Release everything it holds: nothing more comes.

        A method, or a closure, that points back at the sink would keep it and the whole answer
        alive until the collector looks for cycles, thousands of requests later.
        """
        del self._take
        if self._forwarder is not None:
            del self._forwarder.write
        self._forwarder = None

    def flow_to(
        self,
        started_response: StartedResponse,
        exchange: Exchange,
        tail: Tail | None,
        mender: Mender | None,
        names: Names | None = None,
    ) -> None:
        """Write to the client from now on, beginning with what has come so far.

        ``tail`` and ``mender``: of a stream of events.
        """
        rename = names.feed if names is not None else None
        mend = mender.feed if mender is not None and tail is not None else None
        transport, chunked = started_response.transport, started_response.chunked
        write = transport.write
        closing = transport.is_closing
        flow = started_response.flow

        def hold() -> None:
            if not self.paused:
                self.paused = True
                exchange.pause()
                self._tell()

        def take(data: bytes) -> None:
            if tail is not None:
                self._events += data.count(b"\n\n")
            if mend is not None:
                if tail is not None:
                    tail.feed(data)
                data = mend(data)
                if mender is not None and mender.over and not self.ended:
                    self.on_error(EventTooLong("the model's server sent an event that is too long"))
                if not data:
                    return  # part of an event: an empty chunk would end the answer
            if rename is not None and not (data := rename(data)):
                return  # part of a line
            if chunked:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            if tail is not None and mend is None:
                tail.feed(data)
            if closing():
                return  # the client has gone; its handler is about to be cancelled
            write(data)

        flow.when_full = hold
        if flow.full:  # since it was told that its model loads
            hold()
        if tail is not None:
            tail.framed = chunked and mend is None
        early, self.early = self.early, []
        for data in early:
            take(data)
        self._take = take
        if tail is not None and tail.framed:
            self._forwarder = forwarder = ChunkForwarder(write, tail.feed)
            if rename is not None:
                forwarder.write = _renaming(forwarder, rename, write)
            exchange.pass_chunks(forwarder)

    def _keep(self, data: bytes) -> None:
        self.early.append(data)
        if self.whole and self.head.length is None:
            self.whole = sum(map(len, self.early)) <= _WHOLE
        if not self.whole:
            self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, None
        if news is not None and not news.done():
            news.set_result(None)
