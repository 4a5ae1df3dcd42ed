"""One round trip: a request to a backend, its answer to the client as it comes.

A streamed chunk goes from the upstream parser's callback straight to the client's transport: no
task, no await, no queue. Back-pressure works both ways (a client that stops reading pauses its
upstream), a client that hangs up ends the generation, and until the first byte has gone out, a
request whose backend died is sent once more to the restarted one.
"""

from __future__ import annotations

import logging

import orjson
from aiohttp import web

from gateway.backends.backend import Backend
from gateway.backends.scheduler import Lease, Scheduler
from gateway.errors import BackendError, GatewayError
from gateway.proxy import headers
from gateway.proxy.blame import read_failure
from gateway.proxy.call import Call, Outcome, finish
from gateway.proxy.dialect import ANTHROPIC
from gateway.proxy.failure import Failure
from gateway.proxy.heartbeat import Heartbeat, Passed
from gateway.proxy.outgoing import Answer, Opened, Opener, Whole, open_stream
from gateway.proxy.renaming import InEvents, InJson, renamed
from gateway.proxy.sink import Names, Sink, is_coded, is_events, is_stream
from gateway.proxy.sse import Tail, usage_of
from gateway.proxy.waiting import in_words
from gateway.upstream import (
    ConnectFailed,
    ConnectionLost,
    Exchange,
    ResponseHead,
    UploadFailed,
    UpstreamError,
)

_log = logging.getLogger(__name__)


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
    answer = Sink()
    answer.awaits_head = call.stream is None
    answer.may_stream = call.stream is not False
    exchange = await lease.backend.pool.send(
        call.method, call.target, call.headers, call.body, answer, body_length=call.length
    )
    outcome.sent = call
    try:
        if call.stream is None and heart is not None:
            await answer.headed()
            if is_stream(answer.head):
                heart.start()
        await answer.begun()
        head = answer.head
        if head.status < 400:
            call.asked = None  # a stream lives for minutes, and prompts are long
        opened = await heart.settled() if heart is not None else None
        if opened is None:
            if answer.whole:
                return _whole(lease, call, head, b"".join(answer.early), outcome)
            if is_stream(head) or _names(call, head) is not None:
                head.length = None  # with heartbeats, or another name, it is another one
            opened = await open_stream(opener, head)
        elif head.status >= 400:
            raise _failure(lease, call, head, b"".join(answer.early)).as_error()
        elif not is_stream(head):
            raise BackendError(f"{call.model} did not answer with a stream")
        return await _stream(
            call, head, exchange, answer, outcome, opened, heart, lease.backend, deaths
        )
    finally:
        exchange.abort()
        answer.done()


def _names(call: Call, head: ResponseHead) -> Names | None:
    """What gives an answer that isn't kept our name for its model, if it needs that."""
    if call.renamed is None or is_coded(head):
        return None
    if is_events(head):
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
    answer: Sink,
    outcome: Outcome,
    opened: Opened,
    heart: Heartbeat | None,
    backend: Backend,
    deaths: int,
) -> web.StreamResponse:
    response = opened.response
    tail: Tail | None = None
    passed: Passed | None = None
    if is_events(head):
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
    await finish(opened)
    return response


async def _pump(answer: Sink, exchange: Exchange, opened: Opened) -> None:
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
