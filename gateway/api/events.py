"""Server-Sent Events (aiohttp-sse) without an end of their own: on until somebody leaves."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from aiohttp import web
from aiohttp_sse import EventSourceResponse, sse_response

from gateway.api.context import LIFECYCLE, SETTINGS
from gateway.backends.scheduler import Scheduler
from gateway.tasks import cancel_and_wait, spawn

#: nginx must not keep events back.
_HEADERS = {"X-Accel-Buffering": "no"}
#: Of ``limits.heartbeat``, so that there is a little to spare.
_PING = 0.9
#: Seconds between events that differ in numbers only.
PAUSE = 5.0

_T = TypeVar("_T")


class Source(Protocol):
    """Something that tells of its changes."""

    def subscribe(self, callback: Callable[[], None], /) -> Callable[[], None]:
        """Call ``callback`` after every change; returns how to end it."""


def patience(request: web.Request) -> float:
    """Seconds after which something goes out in a stream, if nothing else has."""
    return request.app[SETTINGS].limits.heartbeat * _PING


def event_stream(request: web.Request) -> AbstractAsyncContextManager[EventSourceResponse]:
    """A stream of events that is kept alive, by comments, for as long as it lasts."""
    ping = patience(request)
    return sse_response(request, headers=_HEADERS, sep="\n", ping_interval=ping)


async def endless(
    request: web.Request, items: AsyncGenerator[str, None], *, event: str | None = None
) -> web.StreamResponse:
    """Send each item as an event until the client leaves or the gateway stops.

    Shutdown does not wait for such a stream: it ends it.
    """
    lifecycle = request.app[LIFECYCLE]
    lifecycle.leave()
    stopping = spawn(lifecycle.stopping.wait(), name="a stream of events waits for the end")
    try:
        async with event_stream(request) as stream:
            while stream.is_connected():
                coming = spawn(_next(items), name="next event")
                try:
                    await asyncio.wait((coming, stopping), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not coming.done():
                        await cancel_and_wait(coming)
                if coming.cancelled() or (item := coming.result()) is None:
                    break
                await stream.send(item, event=event)
            stream.stop_streaming()
        return stream
    finally:
        lifecycle.enter()
        await cancel_and_wait(stopping)
        await items.aclose()


async def _next(items: AsyncGenerator[str, None]) -> str | None:
    return await anext(items, None)


async def changes(scheduler: Scheduler) -> AsyncGenerator[None, None]:
    """Yield at once, and after every change of a backend's state or queue."""
    changed = asyncio.Event()
    stop_listening = scheduler.subscribe(changed.set)
    try:
        while True:
            changed.clear()
            yield
            await changed.wait()
    finally:
        stop_listening()


async def throttled(
    look: Callable[[], _T], essence: Callable[[_T], Any], *sources: Source
) -> AsyncGenerator[_T, None]:
    """Yield what ``look`` sees: at once, and after every change of one of the ``sources``.

    Where the ``essence`` of it is still the same, the next one comes :data:`PAUSE` after the
    last, also if only time has passed.
    """
    changed = asyncio.Event()
    stop_listening = [source.subscribe(changed.set) for source in sources]
    try:
        while True:
            told, told_at = look(), time.monotonic()
            yield told
            while True:
                changed.clear()
                seen = look()
                if essence(seen) != essence(told):
                    break
                due = told_at + PAUSE - time.monotonic()
                if seen != told and due <= 0:
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(due if due > 0 else PAUSE):
                        await changed.wait()
    finally:
        for stop in stop_listening:
            stop()
