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
from gateway.errors import BackendError, GatewayError
from gateway.proxy import headers
from gateway.proxy.blame import read_failure
from gateway.proxy.dialect import ANTHROPIC, OPENAI, Dialect
from gateway.proxy.failure import Failure
from gateway.proxy.heartbeat import Heartbeat, Passed, Pulse
from gateway.proxy.outgoing import EVENTS, Answer, Opened, Opener, Whole, open_stream
from gateway.proxy.renaming import InEvents, InJson, renamed
from gateway.proxy.sse import Tail, Usage, usage_of
from gateway.proxy.waiting import in_words
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


class Names(Protocol):
    """What puts our name for a model into an answer: see :mod:`gateway.proxy.renaming`."""

    def feed(self, data: bytes, /) -> bytes: ...

    def rest(self) -> bytes: ...


class Mender(Passed, Protocol):
    """What mends one stream of events: see :class:`gateway.proxy.numbering.Numbering`."""

    def feed(self, data: bytes, /) -> bytes: ...

    def pulse(self, words: bytes, waiting: bool, /) -> bytes: ...

    def last(self, event: bytes, error: GatewayError, /) -> bytes: ...


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
    #: What the client sent, where its messages are others in ``body``, until no error can be about
    #: them any more: errors count them as the client does.
    asked: bytes | None = None
    #: Whether the client asked for a stream: something goes out all the time, even while it waits.
    #: None: that stands where nobody looks, and the answer's head says it.
    stream: bool | None = False
    dialect: Dialect = OPENAI
    #: Whether several answers were asked for, of several prompts maybe.
    several: bool = False
    many_prompts: bool = False
    #: Whether its ``headers`` have the client's Accept-Encoding: what comes may be packed.
    coded: bool = False
    #: What a complete, successful JSON answer (as sent, and parsed) becomes for the client.
    rewrite: Callable[[bytes, Any], bytes] | None = None
    #: What each piece of a stream of events goes through on its way to the client.
    mender: Mender | None = None
    #: Our name for the model, where its server has another one for it in its answers.
    renamed: str | None = None
    #: Makes the body, where that takes a backend which can be asked first.
    prepare: Callable[[Backend], Awaitable[bytes]] | None = None
    #: Seconds, in which something goes out in its stream: ``limits.heartbeat``.
    heartbeat: float = 10.0

    @property
    def pulse(self) -> Pulse:
        """What makes its heartbeats."""
        return self.dialect.pulse if self.mender is None else self.mender.pulse

    async def break_off(self, opened: Opened, error: GatewayError, passed: Passed | None) -> None:
        """End a stream of events, in which ``passed`` has gone out, with ``error``."""
        event = self.dialect.last_event(error, passed.half() if passed is not None else b"")
        if self.mender is not None:
            event = self.mender.last(event, error)
            if self.mender.complete and opened.chunked:
                # It says in its own words that it has failed: as HTTP it ends as any other, and
                # its connection goes on, as the head that is out has said.
                opened.write(event)
                await _finish(opened)
                return
        opened.break_off(event)


@dataclass(slots=True)
class Outcome:
    """What became of a call: filled in while it runs, read for accounting."""

    usage: Usage | None = None
    #: Events of a stream. Without ``usage`` (it was cut off) the best guess at its tokens.
    events: int = 0
    error: GatewayError | None = None
    attempts: int = 0
    #: What a backend was sent. Its body stays here for as long as the answer takes: if that is
    #: hung up on, the prompt is counted.
    sent: Call | None = None

    def tell(self, error: GatewayError) -> GatewayError:
        """``error`` as the client may see it."""
        return error


async def relay(opener: Opener, scheduler: Scheduler, call: Call, outcome: Outcome) -> Answer:
    """Send ``call`` to its model's backend and the answer to the client that ``opener`` leads to.

    Raises :class:`GatewayError` while nothing has gone out yet. Cancelling it (the client hung
    up) ends the request upstream at once.
    """
    heart: Heartbeat | None = None
    if call.stream is not False:
        heart = Heartbeat(opener, call.heartbeat, call.pulse)
        if call.stream:
            heart.start()
    deaths = 0
    try:
        while True:
            outcome.attempts += 1
            lease = scheduler.try_lease(call.model)
            try:
                if lease is None:
                    if heart is not None:
                        heart.waiting = in_words(scheduler, call.model)
                    lease = await scheduler.lease(call.model)
                    if heart is not None:
                        heart.waiting = None
                deaths = lease.backend.deaths
                return await _attempt(opener, lease, deaths, call, outcome, heart)
            except (ConnectFailed, ConnectionLost) as error:
                # Nothing has reached the client: once more, as if it had just arrived.
                if lease is None:
                    raise
                again = outcome.attempts == 1 and isinstance(call.body, bytes)
                if not again or not await lease.backend.suspect(error):
                    raise await lease.backend.reason(error, deaths) from error
                _log.warning("%s; sending the request again", error.message)
                outcome.sent = None
            except UploadFailed as error:
                if isinstance(error.__cause__, GatewayError):  # the client sent too much
                    raise error.__cause__ from None
                raise
            finally:
                if lease is not None:
                    lease.release()
    except GatewayError as error:
        opened = await heart.settled() if heart is not None else None
        if opened is None:
            raise
        # The client reads a stream already: as its last event.
        outcome.error = error
        await call.break_off(opened, outcome.tell(error), None)
        return opened.response
    finally:
        if heart is not None:
            heart.stop()


async def _attempt(
    opener: Opener,
    lease: Lease,
    deaths: int,
    call: Call,
    outcome: Outcome,
    heart: Heartbeat | None,
) -> Answer:
    if call.prepare is not None:
        call.body = await call.prepare(lease.backend)
        call.prepare = None
    answer = _Answer()
    answer.awaits_head = call.stream is None
    answer.may_stream = call.stream is not False
    exchange = await lease.backend.pool.send(
        call.method, call.target, call.headers, call.body, answer, body_length=call.length
    )
    outcome.sent = call
    try:
        if call.stream is None and heart is not None:
            await answer.headed()
            if _is_stream(answer.head):
                heart.start()
        await answer.begun()
        head = answer.head
        if head.status < 400:
            call.asked = None  # a stream lives for minutes, and prompts are long
        opened = await heart.settled() if heart is not None else None
        if opened is None:
            if answer.whole:
                return _whole(lease, call, head, b"".join(answer.early), outcome)
            if _is_stream(head) or _names(call, head) is not None:
                head.length = None  # with heartbeats, or another name, it is another one
            opened = await open_stream(opener, head)
        elif head.status >= 400:
            raise _failure(lease, call, head, b"".join(answer.early)).as_error()
        elif not _is_stream(head):
            raise BackendError(f"{call.model} did not answer with a stream")
        return await _stream(
            call, head, exchange, answer, outcome, opened, heart, lease.backend, deaths
        )
    finally:
        exchange.abort()
        answer.done()


def _is_stream(head: ResponseHead) -> bool:
    return head.status < 400 and _is_events(head)


def _is_events(head: ResponseHead) -> bool:
    kind = headers.find(head.headers, b"content-type") or b""
    # Packed by a server that was not asked to, they are bytes like any others.
    return kind[: len(EVENTS)].lower() == EVENTS.encode() and not _is_coded(head)


def _is_coded(head: ResponseHead) -> bool:
    return headers.find(head.headers, b"content-encoding") not in (None, b"identity")


def _names(call: Call, head: ResponseHead) -> Names | None:
    """What gives an answer that isn't kept our name for its model, if it needs that."""
    if call.renamed is None or _is_coded(head):
        return None
    if _is_events(head):
        if call.mender is not None:
            return None  # which sees to that, too
        return InEvents(call.renamed, once=call.dialect is ANTHROPIC)
    kind = headers.find(head.headers, b"content-type") or b""
    return InJson(call.renamed) if kind.startswith(b"application/json") else None


def _failure(lease: Lease, call: Call, head: ResponseHead, body: bytes) -> Failure:
    here, asked = not lease.backend.spec.url, call.asked or call.body
    return read_failure(call.model, here, call.target, asked, head.status, body, head.headers)


def _whole(lease: Lease, call: Call, head: ResponseHead, body: bytes, outcome: Outcome) -> Whole:
    passed = headers.to_client(head.headers)
    status = head.status
    if status >= 400:
        failure = _failure(lease, call, head, body)
        status, body = failure.status, call.dialect.error(failure)
        passed = headers.of_error(passed, failure.retry_after, fleeting=failure.fleeting)
    else:
        try:
            parsed = orjson.loads(body)
        except ValueError:  # not JSON: nothing to read in it
            return Whole(status, passed, body)
        outcome.usage = usage_of(parsed)
        if call.renamed is not None:
            body = renamed(body, parsed, call.renamed)
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
    heart: Heartbeat | None,
    backend: Backend,
    deaths: int,
) -> web.StreamResponse:
    response = opened.response
    tail: Tail | None = None
    passed: Passed | None = None
    if _is_events(head):
        tail = call.dialect.tail()
        passed = call.mender or tail
        if heart is not None:
            heart.flows(opened, passed, answer.flush)
    names = _names(call, head)
    answer.flow_to(opened, exchange, tail, call.mender, names)
    try:
        await _pump(answer, exchange, opened)
        if names is not None and (rest := names.rest()):
            opened.write(rest)
    except UpstreamError as broke:
        answer.flush()
        if passed is None or not passed.complete:
            # Never a clean end, but where the last event says so itself.
            outcome.error = error = await backend.reason(broke, deaths)
            _log.error("a stream broke: %s", error.message)
            if passed is None:
                opened.break_off(None)
            else:
                await call.break_off(opened, outcome.tell(error), passed)
            return response
        _log.info("behind its last event a stream broke: %s", broke.message)
    finally:
        if heart is not None:
            heart.stop()
        if tail is not None:
            answer.flush()
            outcome.usage = tail.usage()
            outcome.events = answer.events
    await _finish(opened)
    return response


async def _finish(opened: Opened) -> None:
    with contextlib.suppress(ConnectionError):  # the client left in the last moment
        await opened.finish()


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


def _renaming(
    outlet: Outlet, rename: Callable[[bytes], bytes], write: Callable[[bytes], None]
) -> Callable[[bytes], None]:
    """What writes whole chunks, each with another name in it, and so of another size."""

    def write_renamed(chunk: bytes) -> None:
        data = rename(chunk[chunk.find(b"\n") + 1 : -2])
        if data:
            outlet.last = chunk = b"%x\r\n%b\r\n" % (len(data), data)
            write(chunk)
        else:  # part of a line: nothing has gone out
            outlet.last = b""
            outlet.flush()

    return write_renamed


class _Answer:
    """The sink of one exchange: keeps what comes until it is told where it shall flow."""

    __slots__ = (
        "_events",
        "_news",
        "_outlet",
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
        self.awaits_head = False  # its head is to be told of as soon as it is here
        self.may_stream = False  # a stream was asked for, or may have been
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
        """To wait for something to do, for the task that relays."""
        self._news = future = asyncio.get_running_loop().create_future()
        return future

    def on_head(self, head: ResponseHead) -> None:
        self.head = head
        length = head.length
        # An error is read to its end, framed as it may be: it is said again in another shape.
        self.whole = length <= _WHOLE if length is not None else head.status >= 400
        if self.may_stream and self.whole and _is_stream(head):
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
        """Nothing comes any more: what it holds goes now.

        A method, or a closure, that points back at it would keep it, and the whole answer, until
        the collector looks for cycles: thousands of requests later.
        """
        del self._take
        if self._outlet is not None:
            del self._outlet.write
        self._outlet = None

    def flow_to(
        self,
        opened: Opened,
        exchange: Exchange,
        tail: Tail | None,
        mender: Mender | None,
        names: Names | None = None,
    ) -> None:
        """From now on write to the client, beginning with what came so far.

        ``tail`` and ``mender``: of a stream of events.
        """
        rename = names.feed if names is not None else None
        mend = mender.feed if mender is not None and tail is not None else None
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
            if rename is not None and not (data := rename(data)):
                return  # part of a line
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
            self._outlet = outlet = Outlet(write, tail.feed)
            if rename is not None:
                outlet.write = _renaming(outlet, rename, write)
            exchange.pass_chunks(outlet)

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
