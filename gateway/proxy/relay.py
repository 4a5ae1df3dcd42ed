"""One round trip: a request to a backend, its answer to the client as it comes.

A streamed chunk goes from the upstream parser's callback straight to the client's transport: no
task, no await, no queue. Back-pressure works both ways (a client that stops reading pauses its
upstream), a client that hangs up ends the generation, and until the first byte has gone out, a
request whose backend died is sent once more to the restarted one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from aiohttp import web

from gateway.backends.backend import Backend
from gateway.backends.scheduler import Lease, Scheduler
from gateway.errors import GatewayError
from gateway.proxy import headers
from gateway.proxy.dialect import OPENAI, Dialect
from gateway.proxy.failure import Failure
from gateway.proxy.outgoing import EVENTS, Answer, Opened, Opener, Whole, open_stream
from gateway.proxy.sse import Tail, Usage, usage_of
from gateway.proxy.waiting import Refused, wait_for_lease
from gateway.upstream import (
    ConnectFailed,
    ConnectionLost,
    Exchange,
    Outlet,
    ResponseHead,
    UploadFailed,
    UpstreamError,
)

_log = logging.getLogger(__name__)

#: Answers of known length up to here are parsed for their usage, and passed on in one piece, head
#: and body together: as much as a client that doesn't read may keep here. Longer ones are streamed.
_WHOLE = 256 * 1024
#: Bytes waiting for a client from which on its upstream is paused (asyncio's own high water).
_HIGH_WATER = 64 * 1024


class Mender(Protocol):
    """What mends one stream of events: see :class:`gateway.proxy.numbering.Numbering`."""

    def feed(self, data: bytes, /) -> bytes: ...

    def last(self, event: bytes, /) -> bytes: ...


@dataclass(slots=True)
class Call:
    """A request for a backend. ``headers`` are lines ready for the wire, without framing.

    A ``body`` that is iterated over is sent once, never again, with ``length`` as its
    Content-Length, or chunked.
    """

    model: str
    method: str
    target: str
    headers: bytes
    body: bytes | AsyncIterable[bytes]
    length: int | None = None
    #: Whether the client asked for a stream: it is kept informed while it waits.
    stream: bool = False
    dialect: Dialect = OPENAI
    #: Whether its ``headers`` have the client's Accept-Encoding: what comes may be packed.
    coded: bool = False
    #: What a complete, successful JSON answer (as sent, and parsed) becomes for the client.
    rewrite: Callable[[bytes, Any], bytes] | None = None
    #: Makes what each piece of a stream of events goes through on its way to the client.
    mend: Callable[[], Mender] | None = None
    #: Makes the body, where that takes a backend which can be asked first.
    prepare: Callable[[Backend], Awaitable[bytes]] | None = None


@dataclass(slots=True)
class Outcome:
    """What became of a call: filled in while it runs, read for accounting."""

    usage: Usage | None = None
    #: Events of a stream. Without ``usage`` (it was cut off) the best guess at its tokens.
    events: int = 0
    error: GatewayError | None = None
    attempts: int = 0

    def tell(self, error: GatewayError) -> GatewayError:
        """``error`` as the client may see it."""
        return error


async def relay(opener: Opener, scheduler: Scheduler, call: Call, outcome: Outcome) -> Answer:
    """Send ``call`` to its model's backend and the answer to the client that ``opener`` leads to.

    Raises :class:`GatewayError` while nothing has gone out yet. Cancelling it (the client hung
    up) ends the request upstream at once.
    """
    opened: Opened | None = None
    deaths = 0
    while True:
        outcome.attempts += 1
        lease = scheduler.try_lease(call.model)
        try:
            if lease is None and call.stream:
                lease, opened = await wait_for_lease(opener, scheduler, call.model, opened)
            elif lease is None:
                lease = await scheduler.lease(call.model)
            deaths = lease.backend.deaths
            return await _attempt(opener, lease, deaths, call, outcome, opened)
        except (ConnectFailed, ConnectionLost) as error:
            # Nothing has reached the client: once more, as if it had just arrived.
            if lease is None:
                return _refuse(error, call, outcome, opened)
            again = outcome.attempts == 1 and isinstance(call.body, bytes)
            if not again or not await lease.backend.suspect(error):
                reason = await lease.backend.reason(error, deaths)
                return _refuse(reason, call, outcome, opened)
            _log.warning("%s; sending the request again", error.message)
        except UploadFailed as error:
            if isinstance(error.__cause__, GatewayError):  # the client sent too much
                raise error.__cause__ from None
            raise
        except Refused as refused:
            return _refuse(refused.error, call, outcome, refused.opened)
        except GatewayError as error:
            return _refuse(error, call, outcome, opened)
        finally:
            if lease is not None:
                lease.release()


def _refuse(
    error: GatewayError, call: Call, outcome: Outcome, opened: Opened | None
) -> web.StreamResponse:
    """``error`` as a plain HTTP error, or, where the stream is open, as its last event."""
    if opened is None:
        raise error
    outcome.error = error
    mender = call.mend() if call.mend is not None else None
    opened.break_off(_last_event(call, outcome.tell(error), mender))
    return opened.response


def _last_event(call: Call, error: GatewayError, mender: Mender | None) -> bytes:
    """``error`` as the event that ends a stream."""
    event = call.dialect.event(error)
    return mender.last(event) if mender is not None else event


async def _attempt(
    opener: Opener,
    lease: Lease,
    deaths: int,
    call: Call,
    outcome: Outcome,
    opened: Opened | None,
) -> Answer:
    if call.prepare is not None:
        call.body = await call.prepare(lease.backend)
        call.prepare = None
    answer = _Answer()
    exchange = await lease.backend.pool.send(
        call.method, call.target, call.headers, call.body, answer, body_length=call.length
    )
    try:
        await answer.begun()
        head = answer.head
        if answer.whole:
            body = b"".join(answer.early)
            if opened is not None:
                # Refused, and the client is waiting already to read a stream.
                error = Failure.read(head.status, body, head.headers).as_error()
                return _refuse(error, call, outcome, opened)
            return _whole(call, head, body, outcome)
        if opened is None:
            opened = await open_stream(opener, head)
        call.body = b""  # from here on it can't be sent again
        return await _stream(call, head, exchange, answer, outcome, opened, lease.backend, deaths)
    finally:
        exchange.abort()
        answer.done()


def _whole(call: Call, head: ResponseHead, body: bytes, outcome: Outcome) -> Whole:
    passed = headers.to_client(head.headers)
    status = head.status
    if status >= 400:
        failure = Failure.read(status, body, head.headers)
        status, body = failure.status, call.dialect.error(failure)
        passed = headers.with_retry_after(headers.of_json(passed), failure.retry_after)
    else:
        try:
            parsed = orjson.loads(body)
        except ValueError:  # not JSON: nothing to read in it
            return Whole(status, passed, body)
        outcome.usage = usage_of(parsed)
        if call.rewrite is not None:
            body = call.rewrite(body, parsed)
    return Whole(status, passed, body)


async def _stream(
    call: Call,
    head: ResponseHead,
    exchange: Exchange,
    answer: _Answer,
    outcome: Outcome,
    opened: Opened,
    backend: Backend,
    deaths: int,
) -> web.StreamResponse:
    response = opened.response
    is_events = (headers.find(head.headers, b"content-type") or b"").startswith(EVENTS.encode())
    tail = call.dialect.tail() if is_events else None
    mender = call.mend() if call.mend is not None and is_events else None
    mend = mender.feed if mender is not None else None
    answer.flow_to(opened, exchange, tail, mend)
    try:
        await _pump(answer, exchange, opened)
    except UpstreamError as broke:
        # Never a clean end: no last chunk is written, and the connection closes.
        outcome.error = error = await backend.reason(broke, deaths)
        _log.error("a stream broke: %s", error.message)
        opened.break_off(_last_event(call, outcome.tell(error), mender) if is_events else None)
        return response
    finally:
        if tail is not None:
            answer.flush()
            outcome.usage = tail.usage()
            outcome.events = answer.events
    with contextlib.suppress(ConnectionError):  # the client left in the last moment
        await opened.finish()
    return response


async def _pump(answer: _Answer, exchange: Exchange, opened: Opened) -> None:
    """Wait for the end, and in between for a client that is slower than its backend.

    One that reads nothing at all is cut off by its connection (``limits.send_timeout``).
    """
    while not answer.ended:
        if answer.paused:
            await opened.drain()
            answer.paused = False
            exchange.resume()
        else:
            await answer.news()
    if answer.error is not None:
        raise answer.error


class _Answer:
    """The sink of one exchange: keeps what comes until it is told where it shall flow."""

    __slots__ = (
        "_events",
        "_news",
        "_outlet",
        "_take",
        "early",
        "ended",
        "error",
        "head",
        "paused",
        "whole",
    )

    head: ResponseHead

    def __init__(self) -> None:
        self.early: list[bytes] = []
        self._events = 0  # of a stream of events, without those that went through:
        self._outlet: Outlet | None = None
        self.ended = False
        self.error: UpstreamError | None = None  # why it ended too soon
        self.paused = False  # the client is slower than the backend
        #: It is of a known, small size: nobody is interested in the beginning of it.
        self.whole = False
        self._take: Callable[[bytes], None] = self._keep
        self._news: asyncio.Future[None] | None = None

    @property
    def events(self) -> int:
        """How many events of a stream have come; a chunk that nobody looked at counts as one."""
        return self._events + (self._outlet.chunks if self._outlet is not None else 0)

    def flush(self) -> None:
        """See to it that the tail has the last pieces."""
        if self._outlet is not None:
            self._outlet.flush()

    async def begun(self) -> None:
        """Return with the first byte of its body, or, of a whole one, with the last.

        Raises what went wrong before.
        """
        while not self.ended and (self.whole or not self.early):
            await self.news()
        if self.error is not None and (self.whole or not self.early):
            raise self.error

    def news(self) -> asyncio.Future[None]:
        """To wait for something to do, for the task that relays."""
        self._news = future = asyncio.get_running_loop().create_future()
        return future

    def on_head(self, head: ResponseHead) -> None:
        self.head = head
        length = head.length
        # An error is read to its end, framed as it may be: it is said again in another shape.
        self.whole = length <= _WHOLE if length is not None else head.status >= 400

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
        """Nothing comes any more: what it holds goes now.

        A method, or a closure, that points back at it would keep it, and the whole answer, until
        the collector looks for cycles: thousands of requests later.
        """
        del self._take
        self._outlet = None

    def flow_to(
        self,
        opened: Opened,
        exchange: Exchange,
        tail: Tail | None,
        mend: Callable[[bytes], bytes] | None,
    ) -> None:
        """From now on write to the client, beginning with what came so far."""
        transport, chunked = opened.transport, opened.chunked
        write = transport.write
        closing = transport.is_closing
        unsent = transport.get_write_buffer_size

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
                if not (data := mend(data)):
                    return  # part of an event: an empty chunk would end the answer
            if chunked:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            if tail is not None and mend is None:
                tail.feed(data)
            if closing():
                return  # the client has gone; its handler is about to be cancelled
            write(data)
            if unsent() > _HIGH_WATER:
                hold()

        if tail is not None:
            tail.framed = chunked and mend is None
        early, self.early = self.early, []
        for data in early:
            take(data)
        self._take = take
        if tail is not None and tail.framed and opened.tells_when_full:
            opened.full = hold
            if opened.is_full:  # since it was told that its model loads
                hold()
            self._outlet = Outlet(write, tail.feed)
            exchange.pass_chunks(self._outlet)

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
