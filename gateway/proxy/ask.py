"""Asking a backend on the gateway's own behalf: one question, its text whole or in pieces."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import orjson

from gateway.backends.scheduler import Scheduler
from gateway.errors import BackendError, GatewayError
from gateway.proxy.call import Call, Outcome
from gateway.proxy.failure import Failure
from gateway.proxy.sse import usage_of
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
    with await scheduler.lease(model) as lease:
        # llama-server needs no name: it has one model.
        raw = orjson.dumps({**body, "model": lease.backend.spec.sent_as or model, "stream": True})
        sink = _Pieces()
        exchange = await lease.backend.pool.send("POST", _PATH, _HEADERS, raw, sink)
        outcome.sent = Call(model, "POST", _PATH, _HEADERS, raw)
        try:
            async for event in _events(sink):
                if error := event.get("error"):
                    raise BackendError(str(error.get("message", error)))
                outcome.events += 1
                outcome.usage = usage_of(event) or outcome.usage
                for choice in event.get("choices", ()):
                    if text := choice.get("delta", {}).get("content"):
                        yield text
        finally:
            exchange.abort()


async def _events(sink: _Pieces) -> AsyncIterator[dict[str, Any]]:
    """The JSON events of a stream (WHATWG HTML, Server-sent events; llama-server uses LF)."""
    rest = b""
    async for piece in sink:
        head = sink.head
        if head is not None and head.status >= 400:
            rest += piece
            continue
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                yield orjson.loads(line[6:])
    if sink.head is not None and sink.head.status >= 400:
        raise Failure.read(sink.head.status, rest, sink.head.headers).as_error()


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
