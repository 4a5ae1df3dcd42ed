"""Streams of Server-Sent Events (aiohttp-sse) that go on until their client leaves."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol, TypeVar

import orjson
from aiohttp import web
from aiohttp_sse import EventSourceResponse, sse_response

from gateway.access.principal import LOCAL_ADMIN
from gateway.errors import GatewayError, ShuttingDown
from gateway.pipeline.request_context import CONTEXT, RequestContext
from gateway.proxy.ending import Ending
from gateway.tasks import cancel_and_wait, spawn

#: nginx must not keep events back.
_HEADERS = {"X-Accel-Buffering": "no"}
#: The share of ``limits.heartbeat`` after which a ping is sent, so that there is a little to spare.
_PING = 0.9
#: Seconds between events that differ in numbers only.
PAUSE = 5.0
#: Seconds between two turns if nothing changes, and, for each viewer, if something does. An event
#: costs 20 us a viewer, so turns take at most a twentieth of the loop's time.
_IDLE = 1.0
_SHARE = 400e-6
#: Seconds within which a client must take the event that says why there are no more.
_LAST_WORD = 1.0

_T = TypeVar("_T")


class EventSource(Protocol):
    """An object that reports its changes."""

    def subscribe(self, callback: Callable[[], None], /) -> Callable[[], None]:
        """Call ``callback`` after every change; return a function that ends this."""


def patience(context: RequestContext) -> float:
    """Return the seconds after which a silent stream sends something."""
    return context.services.limits.heartbeat * _PING


def event_stream(request: web.Request) -> AbstractAsyncContextManager[EventSourceResponse]:
    """Return a stream of events, kept alive by comments."""
    ping = patience(request[CONTEXT])
    return sse_response(request, headers=_HEADERS, sep="\n", ping_interval=ping)


async def endless(
    request: web.Request, items: AsyncGenerator[str, None], *, event: str | None = None
) -> web.StreamResponse:
    """Send each item as an event, for as long as the client stays and its key may see them.

    Shutdown ends such a stream instead of waiting for it. If the key is allowed less meanwhile,
    the last event says so.
    """
    context = request[CONTEXT]
    services, lifecycle = context.services, context.services.lifecycle
    context.watches = True
    over = ShuttingDown()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(items.aclose)
        stack.enter_context(counted_stream(context))
        ending = services.standing.hold(context)
        stack.callback(services.standing.done, ending)
        lifecycle.leave()
        stack.callback(lifecycle.enter)
        stopping = spawn(lifecycle.stopping.wait(), name="a stream of events waits for the end")

        def stopped(task: asyncio.Task[Any]) -> None:
            if not task.cancelled():
                ending.end(over)

        stopping.add_done_callback(stopped)
        stack.push_async_callback(cancel_and_wait, stopping)
        try:
            async with event_stream(request) as stream:
                error = await _until(stream, items, event, ending)
                if error is not None and error is not over:
                    said = orjson.dumps(context.tell(error).body()).decode()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_LAST_WORD):
                            await stream.send(said, event="error")
                stream.stop_streaming()
            return stream
        except asyncio.CancelledError as broke:
            if (error := ending.meaning(broke)) is None:
                raise
            raise error from None  # it had not begun


async def _until(
    stream: EventSourceResponse,
    items: AsyncGenerator[str, None],
    event: str | None,
    ending: Ending,
) -> GatewayError | None:
    """Send items until they end, the client leaves, or ``ending`` comes; return its error then."""
    try:
        async for item in items:
            if not stream.is_connected():
                break
            await stream.send(item, event=event)
    except asyncio.CancelledError as broke:
        if (error := ending.meaning(broke)) is None:
            raise
        return error
    return None


def counted_stream(
    context: RequestContext, *, at_once: bool = True
) -> AbstractContextManager[None]:
    """Return a context that counts a request as a stream of its key, and as one of its requests
    ``at_once``. Raises ``RateLimited``.
    """
    services, principal = context.services, context.principal
    if principal is LOCAL_ADMIN or not services.gate.keys_needed:
        return contextlib.nullcontext()
    most = services.limits.streams_per_key
    limiter = services.accounting.limiter
    return limiter.stream(principal.key_id, principal.limits, most, at_once=at_once)


class Board:
    """A board of what streams of events show, computed once for all viewers of the same.

    All viewers take their turns together, so rarely that the turns take a small part of the
    loop's time however many viewers there are. A slow reader misses turns, and gets the newest
    state next.
    """

    def __init__(self, *sources: EventSource) -> None:
        self._sources = sources
        self._stops: list[Callable[[], None]] = []
        self._viewers = 0
        self._turn = asyncio.Event()
        self._seen: dict[Hashable, Any] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._hurried = False
        self._turned = 0.0  # when, in the loop's time

    async def turns(self) -> AsyncGenerator[None, None]:
        """Yield at once, after every change of a source, and every :data:`_IDLE` seconds."""
        self._viewers += 1
        if self._viewers == 1:
            self._seen.clear()
            self._stops = [source.subscribe(self._changed) for source in self._sources]
            self._timer = asyncio.get_running_loop().call_later(_IDLE, self._next)
        try:
            while True:
                turn = self._turn
                yield
                await turn.wait()
        finally:
            self._viewers -= 1
            if not self._viewers:
                self._stop()

    def seen(self, what: Hashable, look: Callable[[], _T]) -> _T:
        """Return what ``look`` returned for ``what`` earlier in this turn, or call it now."""
        found: _T | None = self._seen.get(what)
        if found is None:
            found = self._seen[what] = look()
        return found

    def _changed(self) -> None:
        self._seen.clear()
        if not self._hurried:
            self._hurried = True
            if self._timer is not None:
                self._timer.cancel()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(self._turned + self._viewers * _SHARE, self._next)

    def _next(self) -> None:
        loop = asyncio.get_running_loop()
        self._turned, self._hurried = loop.time(), False
        self._seen.clear()
        turn, self._turn = self._turn, asyncio.Event()
        turn.set()
        self._timer = loop.call_later(_IDLE, self._next)

    def _stop(self) -> None:
        for stop in self._stops:
            stop()
        if self._timer is not None:
            self._timer.cancel()
        self._hurried = False
        self._seen.clear()


def is_due(told_at: float) -> bool:
    """Return whether a change of numbers alone is worth an event again."""
    return time.monotonic() - told_at >= PAUSE
