"""Asking a backend on the gateway's own behalf: one question, its text whole or in pieces."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import orjson

from gateway.backends.scheduler import Scheduler
from gateway.errors import BackendError, GatewayError
from gateway.proxy.body import serialise
from gateway.proxy.call import Call, Outcome
from gateway.proxy.failure import Failure
from gateway.proxy.sink import is_events
from gateway.proxy.sse import usage_of
from gateway.proxy.trial import admit, convict
from gateway.proxy.waiting import lease as wait_for_lease
from gateway.upstream import ConnectFailed, ConnectionLost, ResponseHead

_HEADERS = b"Content-Type: application/json\r\n"
_PATH = "/v1/chat/completions"


async def texts(
    scheduler: Scheduler, model: str, body: dict[str, Any], outcome: Outcome
) -> AsyncGenerator[str, None]:
    """Stream a chat completion and yield its text as it comes.

    ``body`` is a chat-completions body without ``stream``. Ending the iteration early ends the
    generation. ``outcome`` is told what it took. A backend that dies before it has said anything
    is asked once more when it is back. Raises :class:`GatewayError`.
    """
    for last in (False, True):
        outcome.attempts += 1
        backend = scheduler.backend(model)
        deaths = backend.deaths if backend is not None else 0
        try:
            async with contextlib.aclosing(_once(scheduler, model, body, outcome)) as pieces:
                async for piece in pieces:
                    yield piece
            return
        except (ConnectFailed, ConnectionLost) as error:
            if backend is None:
                raise
            if last or outcome.events or not await backend.suspect(error):
                raise await backend.reason(error, deaths) from error
            outcome.sent = None


async def _once(
    scheduler: Scheduler, model: str, body: dict[str, Any], outcome: Outcome
) -> AsyncGenerator[str, None]:
    with scheduler.try_lease(model) or await wait_for_lease(scheduler, model, outcome) as lease:
        # llama-server needs no name: it has one model.
        raw = serialise({**body, "model": lease.backend.spec.sent_as or model, "stream": True})
        if scheduler.suspects:
            await admit(scheduler, outcome.key, model, _PATH, raw)
        sink = _Pieces()
        backend = lease.backend
        flights, deaths = backend.flights, backend.deaths
        exchange = await lease.backend.pool.send("POST", _PATH, _HEADERS, raw, sink)
        flight = flights.begin(_PATH, raw)
        flight.exchange = exchange
        outcome.sent = Call(model, "POST", _PATH, _HEADERS, raw)
        chosen = complete = False
        try:
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
                raise BackendError(f"{model} answered with a stream that has no `choices` in it")
            complete = True
        except (ConnectFailed, ConnectionLost) as broke:
            guilty = await convict(
                scheduler, backend, broke, deaths, flight, key=outcome.key, body=raw
            )
            raise (guilty or broke) from None
        finally:
            exchange.abort()
            flights.end(flight, complete=complete)


async def _events(sink: _Pieces) -> AsyncIterator[dict[str, Any]]:
    """The JSON events of a stream (WHATWG HTML, Server-sent events; llama-server uses LF)."""
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
    """The text in each of the choices of an event, of which there may be none."""
    try:
        for choice in event.get("choices") or ():
            text = (choice.get("delta") or {}).get("content") or ""
            if not isinstance(text, str):
                raise TypeError
            yield text
    except (TypeError, AttributeError):
        raise BackendError("the model's server sent an event whose `choices` are none") from None


class _Pieces:
    """A sink that is iterated over."""

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
