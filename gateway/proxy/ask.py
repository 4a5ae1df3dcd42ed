"""Questions to a backend on the gateway's own behalf, with the answer's text as a whole or in
pieces.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import orjson

from gateway.backends.flights import Flight
from gateway.backends.scheduler import Scheduler
from gateway.backends.served import Served
from gateway.errors import BackendError, GatewayError
from gateway.proxy.call import Call, Outcome
from gateway.proxy.failure import Failure
from gateway.proxy.retry import BROKEN_OFF, retry_or_raise
from gateway.proxy.sink import is_events
from gateway.proxy.sse import usage_of
from gateway.proxy.trial import refuse_suspects
from gateway.proxy.waiting import lease as wait_for_lease
from gateway.upstream import Exchange, ResponseHead


async def texts(scheduler: Scheduler, call: Call, outcome: Outcome) -> AsyncGenerator[str, None]:
    """Stream a chat completion, and yield its text as it comes.

    The body of ``call`` is bytes, and asks for a stream. Ending the iteration early ends the
    generation. ``outcome`` is told what it took. A backend that dies before it has said anything
    is asked once more when it is back. Raises :class:`GatewayError`.
    """
    while True:
        outcome.attempts += 1
        model = call.model
        with scheduler.try_lease(model) or await wait_for_lease(scheduler, model, outcome) as lease:
            backend: Served = lease.backend
            deaths = backend.deaths
            flight: Flight | None = None
            try:
                if call.prepare is not None:
                    call.body = await call.prepare(lease.backend)
                    call.prepare = None
                if scheduler.suspects:
                    await refuse_suspects(scheduler, outcome.key, model, call.target, call.body)
                if (several := lease.backend.several) is not None:
                    backend = lease.choose(several, call.prefix, call.saved)
                    deaths = backend.deaths
                if (turn := call.turn) is not None:
                    gone_on = turn.go_on(backend)
                    call.slot = (
                        turn.named if gone_on else await turn.begin(backend, call.target, lease)
                    )
                flight = backend.flights.begin(
                    call.target, call.body, call.slot, outcome.request_id
                )
                async with contextlib.aclosing(_once(backend, call, flight, outcome)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            except BROKEN_OFF as error:
                await retry_or_raise(
                    scheduler,
                    backend,
                    error,
                    deaths=deaths,
                    flight=flight,
                    key=outcome.key,
                    body=call.body,
                    attempts=outcome.attempts,
                    heard=outcome.events > 0,
                )
                outcome.sent = None
            finally:
                if call.turn is not None:
                    call.turn.end(outcome)


async def _once(
    backend: Served, call: Call, flight: Flight, outcome: Outcome
) -> AsyncGenerator[str, None]:
    sink = _AnswerPieces()
    exchange: Exchange | None = None
    chosen = complete = False
    try:
        exchange = await backend.pool.send(call.request(), sink)
        flight.exchange = exchange
        outcome.sent = call
        async for event in _events(sink):
            if error := event.get("error"):
                said = error.get("message", error) if isinstance(error, dict) else error
                raise BackendError(str(said)[:2000])
            if not outcome.events:
                outcome.began = time.perf_counter()
            outcome.events += 1
            outcome.usage = usage_of(event) or outcome.usage
            for text in _said(event):
                chosen = True
                if text:
                    yield text
        if not chosen:
            raise BackendError(f"{call.model} answered with a stream that has no `choices` in it")
        complete = True
    finally:
        outcome.given_up = exchange is not None and not complete
        if exchange is not None:
            exchange.abort()
        # Where there was none, nothing of it has come there.
        backend.flights.end(flight, complete=complete or exchange is None)


async def _events(sink: _AnswerPieces) -> AsyncIterator[dict[str, Any]]:
    """Yield the JSON events of a stream (WHATWG HTML, Server-sent events; llama-server uses LF)."""
    rest = b""
    async for piece in sink:
        head = sink.head
        if head is not None and head.status >= 400:
            rest += piece
            continue
        if head is not None and not is_events(head):
            raise BackendError("the model's server did not answer with a stream")
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                yield _parsed(line[6:])
    if sink.head is not None and sink.head.status >= 400:
        raise Failure.read(sink.head.status, rest, sink.head.headers).as_error()


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        event: dict[str, Any] = orjson.loads(data)  # it begins as an object
    except ValueError:
        raise BackendError("the model's server sent an event that is no JSON") from None
    return event


def _said(event: dict[str, Any]) -> Iterator[str]:
    """Yield the text in each of the choices of an event, of which there may be none."""
    try:
        for choice in event.get("choices") or ():
            text = (choice.get("delta") or {}).get("content") or ""
            if not isinstance(text, str):
                raise TypeError
            yield text
    except (TypeError, AttributeError):
        raise BackendError("the model's server sent an event whose `choices` are none") from None


class _AnswerPieces:
    """A sink over which its reader iterates."""

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self._queue: asyncio.Queue[bytes | GatewayError | None] = asyncio.Queue()

    def on_head(self, head: ResponseHead) -> None:
        self.head = head

    def on_body(self, data: bytes) -> None:
        self._queue.put_nowait(data)

    def on_end(self) -> None:
        self._queue.put_nowait(None)

    def on_error(self, error: GatewayError) -> None:
        self._queue.put_nowait(error)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (item := await self._queue.get()) is not None:
            if isinstance(item, GatewayError):
                raise item
            yield item
