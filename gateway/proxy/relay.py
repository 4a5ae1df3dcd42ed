"""Relays one request: to a backend, and its answer to the client as it comes.

A streamed chunk goes from the upstream parser's callback straight to the client's transport: no
task, no await, no queue. Back-pressure works both ways (a client that stops reading pauses its
upstream), a client that hangs up ends the generation, and until the first byte has gone out, a
request whose backend died is sent once more to the restarted one (:mod:`gateway.proxy.retry`).
"""

from __future__ import annotations

import asyncio
import logging
import time

import orjson

from gateway.backends.flights import Flight
from gateway.backends.lease import Lease
from gateway.backends.scheduler import Scheduler
from gateway.backends.served import Served
from gateway.errors import BackendError, GatewayError, client_has_gone
from gateway.http.response import Answer, BufferedResponse, StartedResponse, StartResponse
from gateway.proxy import headers
from gateway.proxy.blame import failure_of
from gateway.proxy.body import serialise
from gateway.proxy.call import Call, Outcome, finish
from gateway.proxy.dialect import ANTHROPIC
from gateway.proxy.failure import Failure
from gateway.proxy.gathered import Gatherer, status_of
from gateway.proxy.heartbeat import Heartbeat, Passed
from gateway.proxy.outgoing import open_stream
from gateway.proxy.parting import part
from gateway.proxy.renaming import RenamingInEvents, RenamingInJson, renamed
from gateway.proxy.retry import BROKEN_OFF, retry_or_raise
from gateway.proxy.sink import Names, Sink, is_coded, is_events, is_stream
from gateway.proxy.sse import Tail, usage_of
from gateway.proxy.telling import Both, Teller, teller, without_timings
from gateway.proxy.trial import convict, refuse_suspects
from gateway.proxy.waiting import in_words
from gateway.proxy.waiting import lease as wait_for_lease
from gateway.upstream import Exchange, ResponseHead, UploadFailed, UpstreamError

_log = logging.getLogger(__name__)


async def relay(
    start_response: StartResponse, scheduler: Scheduler, call: Call, outcome: Outcome
) -> Answer:
    """Send ``call`` to its model's backend, and the answer to its client by ``start_response``.

    Raises :class:`GatewayError` while nothing has gone out yet. Cancelling it (the client hung
    up, or :attr:`Outcome.ending` ends it, which the client is told) ends the request upstream at
    once.
    """
    heart: Heartbeat | None = None
    if call.stream is not False:
        heart = Heartbeat(start_response, call.heartbeat, call.pulse, call.dialect.stream)
        if call.stream:
            heart.start()
    deaths = 0
    flight: Flight | None = None
    backend: Served
    try:
        while True:
            outcome.attempts += 1
            flight = None
            lease = None
            try:
                prepares = call.prepare is not None
                if not prepares and scheduler.suspects:
                    await refuse_suspects(
                        scheduler, outcome.key, call.model, call.target, call.body
                    )
                lease = scheduler.try_lease(call.model)
                if lease is None:
                    if heart is not None:
                        heart.waiting = in_words(scheduler, call.model)
                    lease = await wait_for_lease(scheduler, call.model, outcome)
                    if heart is not None:
                        heart.waiting = None
                backend = lease.backend
                deaths = backend.deaths
                if call.prepare is not None:
                    call.body = await call.prepare(lease.backend)
                    call.prepare = None
                if prepares and scheduler.suspects:
                    await refuse_suspects(
                        scheduler, outcome.key, call.model, call.target, call.body
                    )
                if (several := lease.backend.several) is not None:
                    backend = outcome.server = lease.choose(several, call.prefix, call.saved)
                    deaths = backend.deaths
                if (turn := call.turn) is not None:
                    gone_on = turn.go_on(backend)
                    call.slot = (
                        turn.named if gone_on else await turn.begin(backend, call.target, lease)
                    )
                flight = backend.flights.begin(
                    call.target, call.body, call.slot, outcome.request_id
                )
                return await _attempt(
                    start_response, scheduler, lease, backend, flight, deaths, call, outcome, heart
                )
            except BROKEN_OFF as error:
                if lease is None:
                    raise
                await retry_or_raise(
                    scheduler,
                    backend,
                    error,
                    deaths=deaths,
                    flight=flight,
                    key=outcome.key,
                    body=call.body,
                    attempts=outcome.attempts,
                )
                outcome.sent = None
            except UploadFailed as error:
                if isinstance(error.__cause__, GatewayError):  # the client sent too much
                    raise error.__cause__ from None
                raise
            finally:
                if call.turn is not None:
                    call.turn.end(outcome)
                if lease is not None:
                    lease.release()
    except (GatewayError, asyncio.CancelledError) as broke:
        ended = outcome.meaning(broke)
        started_response = await heart.settled() if heart is not None else None
        if started_response is None:
            try:
                if ended is broke:
                    raise
                raise ended from None
            finally:
                del ended  # its traceback has this frame: that would be a cycle
        # The client reads a stream already: as its last event.
        outcome.error = ended
        await call.break_off(started_response, outcome.tell(ended), None)
        return started_response
    finally:
        if heart is not None:
            heart.stop()


async def _attempt(
    start_response: StartResponse,
    scheduler: Scheduler,
    lease: Lease,
    backend: Served,
    flight: Flight,
    deaths: int,
    call: Call,
    outcome: Outcome,
    heart: Heartbeat | None,
) -> Answer:
    answer = Sink()
    answer.awaits_head = call.stream is None
    answer.may_stream = call.stream is not False or call.gathers is not None
    try:
        exchange = await backend.pool.send(call.request(), answer)
    except BaseException:
        backend.flights.end(flight, complete=True)  # nothing of it has come there
        raise
    flight.exchange = exchange
    outcome.sent, outcome.answer = call, answer
    left = False  # by its client
    complete = False  # all events have come, if not the end behind them
    try:
        if call.stream is None and heart is not None:
            await answer.headed()
            if is_stream(answer.head):
                heart.start()
        await answer.begun()
        outcome.began = time.perf_counter()
        if call.turn is not None and not answer.ended:
            call.turn.began()
        if lease.on_trial:
            lease.proved()
        head = answer.head
        if call.gathers is not None and is_stream(head):
            return await _gather(call.gathers(), lease, call, answer, outcome)
        if head.status < 400:
            call.asked = None  # a stream lives for minutes, and prompts are long
        started_response = await heart.settled() if heart is not None else None
        if started_response is None:
            if answer.whole:
                return await _whole(lease, call, head, b"".join(answer.early), outcome)
            changes = call.strips_timings or call.flow is not None
            if is_stream(head) or changes or _names(call, head) is not None:
                head.length = None  # with heartbeats, or another name, it is another one
            started_response = await open_stream(start_response, head, call.dialect.stream)
        elif head.status >= 400:
            raise (await _failure(lease, call, head, b"".join(answer.early))).as_error()
        elif not is_stream(head):
            raise BackendError(f"{call.model} did not answer with a stream")
        await _stream(
            call,
            head,
            exchange,
            answer,
            outcome,
            started_response,
            heart,
            scheduler,
            backend,
            deaths,
            flight,
        )
        complete = outcome.error is None
        return started_response
    except BaseException as broke:
        if client_has_gone(broke):
            left = True
            outcome.slots = part(exchange, answer, backend)
        raise
    finally:
        complete = complete or answer.ended
        outcome.given_up = not complete
        backend.flights.end(flight, complete=complete)
        if not left:
            exchange.abort()
            answer.done()


async def _gather(
    gathered: Gatherer, lease: Lease, call: Call, answer: Sink, outcome: Outcome
) -> BufferedResponse:
    """Return the whole answer that a stream of several becomes, for a client that asked for no
    stream.
    """
    head = answer.head
    try:
        while True:
            pieces, answer.early = answer.early, []
            gathered.feed(b"".join(pieces))
            if answer.ended:
                break
            await answer.news()
    finally:
        outcome.usage, outcome.events = gathered.usage(), gathered.events
    if (failed := gathered.error) is not None:
        said = orjson.dumps({"error": failed})
        raise (await _failure(lease, call, head, said, status_of(failed))).as_error()
    if not gathered.complete:
        raise answer.error or BackendError(f"{call.model} did not end its answer")
    whole = gathered.answer()
    body = serialise(whole)
    if call.rewrite is not None:
        body = call.rewrite(body, whole)
    return BufferedResponse(head.status, headers.as_json(headers.to_client(head.headers)), body)


def _names(call: Call, head: ResponseHead) -> Names | None:
    """Return what gives an answer that isn't kept our name for its model, if it needs that, or
    another form.
    """
    if call.flow is not None and head.status < 400 and not is_events(head):
        return call.flow()
    if call.renamed is None or is_coded(head):
        return None
    if is_events(head):
        if call.mender is not None:
            return None  # which sees to that, too
        return RenamingInEvents(call.renamed, once=call.dialect is ANTHROPIC)
    kind = headers.find(head.headers, b"content-type") or b""
    return RenamingInJson(call.renamed) if kind.startswith(b"application/json") else None


def _teller(call: Call, head: ResponseHead) -> Teller | None:
    """Return what finds out what an answer took that isn't kept, where its last event doesn't say
    all.
    """
    if is_coded(head):
        return None
    events = is_events(head)
    if not events:
        kind = headers.find(head.headers, b"content-type") or b""
        if not kind.startswith(b"application/json"):
            return None
    return teller(call.answers, several=call.several, strip=call.strips_timings, events=events)


async def _failure(
    lease: Lease, call: Call, head: ResponseHead, body: bytes, status: int | None = None
) -> Failure:
    here, asked = lease.backend.spec.ours, call.asked or call.body
    status = head.status if status is None else status
    about = call.model, here, call.target, asked, status
    return await failure_of(*about, body, head.headers)


async def _whole(
    lease: Lease, call: Call, head: ResponseHead, body: bytes, outcome: Outcome
) -> BufferedResponse:
    passed = headers.to_client(head.headers)
    status = head.status
    if status >= 400:
        failure = await _failure(lease, call, head, body)
        status, body = failure.status, call.dialect.error(failure)
        outcome.code = failure.code
        passed = headers.of_error(passed, failure.retry_after, fleeting=failure.fleeting)
    else:
        try:
            parsed = orjson.loads(body)
        except ValueError:  # not JSON: nothing to read in it
            outcome.untold = len(body)
            return BufferedResponse(status, passed, body)
        outcome.usage = usage_of(parsed, call.answers)
        if outcome.usage is None:
            outcome.untold = len(body)
        if call.renamed is not None:
            body = renamed(body, parsed, call.renamed)
        if call.strips_timings:
            body = without_timings(body)
        if call.rewrite is not None:
            body = call.rewrite(body, parsed)
    return BufferedResponse(status, passed, body)


async def _stream(
    call: Call,
    head: ResponseHead,
    exchange: Exchange,
    answer: Sink,
    outcome: Outcome,
    started_response: StartedResponse,
    heart: Heartbeat | None,
    scheduler: Scheduler,
    backend: Served,
    deaths: int,
    flight: Flight,
) -> None:
    tail: Tail | None = None
    passed: Passed | None = None
    if is_events(head):
        tail = call.dialect.tail()
        passed = call.mender or tail
        if heart is not None:
            heart.flows(started_response, passed, answer.flush)
    names, told = _names(call, head), _teller(call, head)
    head.headers = []  # nobody reads them any more, and a stream may live for long
    if told is not None:
        names = told if names is None else Both(told, names)
    answer.flow_to(started_response, exchange, tail, call.mender, names)
    try:
        await pump(answer, exchange, started_response)
        if names is not None and (rest := names.rest()):
            started_response.write(rest)
    except (UpstreamError, asyncio.CancelledError) as broke:
        answer.flush()
        if passed is None or not passed.complete:
            error = outcome.meaning(broke)
            # Never a clean end, but where the last event says so itself.
            if isinstance(broke, UpstreamError):
                guilty = await convict(
                    scheduler, backend, broke, deaths, flight, key=outcome.key, body=call.body
                )
                error = guilty or await backend.reason(broke, deaths)
                _log.error("a stream broke: %s", error.message)
            outcome.error = error
            if passed is None:
                started_response.break_off(None)
            else:
                await call.break_off(started_response, outcome.tell(error), passed)
            return
        # Clients leave at the last event, some of them before the end that comes behind it.
        if isinstance(broke, UpstreamError):
            _log.info("behind its last event a stream broke: %s", broke.message)
    finally:
        if heart is not None:
            heart.stop()
        if tail is not None:
            answer.flush()
            outcome.usage = tail.usage() if told is None else told.usage()
            outcome.events = answer.events
        elif told is not None:
            outcome.usage, outcome.untold = told.usage(), told.size
    await finish(started_response)


async def pump(answer: Sink, exchange: Exchange, started_response: StartedResponse) -> None:
    """Wait for the end, and in between for a client that is slower than its backend.

    A client that reads nothing at all is cut off by its connection (``limits.send_timeout``).
    """
    while not answer.ended:
        if answer.paused:
            await started_response.flow.drain()
            answer.paused = False
            exchange.resume()
        else:
            await answer.news()
    if answer.error is not None:
        raise answer.error
