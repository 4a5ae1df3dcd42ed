"""A streaming request that waits for its model, and a client that is told so.

Server-Sent Events may hold comments, which every client ignores (WHATWG HTML, "Server-sent
events"): they keep the connection alive through proxies and time-outs while a model loads.
"""

from __future__ import annotations

import asyncio
import time

from gateway.backends.backend import State
from gateway.backends.scheduler import Lease, Scheduler
from gateway.errors import GatewayError
from gateway.proxy.outgoing import Opened, Opener, open_events
from gateway.tasks import cancel_and_wait, spawn

#: Seconds it waits in silence. Until then a refusal is a plain HTTP error; 429 and 503 come at
#: once, so they always are.
SILENCE = 3.0
HEARTBEAT = 5.0
#: What is waited for, where it is not for others to make room, or to be done.
_WORDS = {State.STARTING: b"starting", State.BACKOFF: b"restarting"}


class Refused(Exception):
    """The scheduler's refusal, and the stream that was opened before it, if one was."""

    def __init__(self, error: GatewayError, opened: Opened | None) -> None:
        self.error = error
        self.opened = opened


async def wait_for_lease(
    opener: Opener, scheduler: Scheduler, model: str, opened: Opened | None
) -> tuple[Lease, Opened | None]:
    """A lease, and the stream that had to be opened meanwhile (or was open already).

    Raises :class:`Refused`. Cancelling it leaves the queue.
    """
    waiting = spawn(_lease_or_error(scheduler, model), name=f"wait for {model}")
    since = time.monotonic()
    try:
        await asyncio.wait([waiting], timeout=SILENCE if opened is None else HEARTBEAT)
        while not waiting.done():
            if opened is None:
                opened = await open_events(opener)
            place = scheduler.waiting(model, waiting)
            opened.write(
                b": %b, position %d, %d s\n\n"
                % (_WORDS.get(place.stage, b"queued"), place.position, time.monotonic() - since)
            )
            await asyncio.wait([waiting], timeout=HEARTBEAT)
    except BaseException:
        await cancel_and_wait(waiting)
        if not waiting.cancelled() and isinstance(lease := waiting.result(), Lease):
            lease.release()
        raise
    result = waiting.result()
    if isinstance(result, GatewayError):
        raise Refused(result, opened)
    return result, opened


async def _lease_or_error(scheduler: Scheduler, model: str) -> Lease | GatewayError:
    try:
        return await scheduler.lease(model)
    except GatewayError as error:
        return error
