"""The orderly end: from the signal to the last answer."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from gateway.backends.scheduler import Scheduler
from gateway.http.lifecycle import Lifecycle
from gateway.http.listeners import Listeners
from gateway.plurals import counted
from gateway.tasks import cancel_and_wait, spawn

_log = logging.getLogger(__name__)

#: How often it is looked whether one more has come of the first requests of connections that were
#: accepted just before the end: for two seconds, or longer where the machine is so busy that
#: each look takes its time.
_LOOKS: Final = 100
#: Seconds in which the clients of requests that are given up are told so.
_TELLING: Final = 1.0
#: Seconds between two checks of such connections.
_PAUSE: Final = 0.02


async def drain(
    lifecycle: Lifecycle,
    listeners: Listeners,
    scheduler: Scheduler,
    *,
    timeout: float,
    hurry: asyncio.Event,
) -> None:
    """Take nobody new, and return when all is answered, ``timeout`` is over, or at ``hurry``.

    What follows closes connections, then backends, then the store.
    """
    # 1. /ready has been 503 since `stopping` was set, and streams without an end have ended.
    lifecycle.stopping.set()
    # 2. Accept no connections; requests that wait for a model get 503 with Retry-After, unless
    # new connections wait for the next gateway: then all present clients are answered.
    await listeners.stop_accepting()
    if not lifecycle.hands_over:
        scheduler.refuse_new()
    # 3. What runs may finish, until the deadline or until somebody is in a hurry.
    running = scheduler.in_flight
    may = f"; {counted(running, 'running request')} may take up to {timeout:g}s" if running else ""
    _log.info("shutting down%s", may)
    answered = spawn(_answered(lifecycle, listeners), name="wait for running requests")
    hurried = spawn(hurry.wait(), name="wait for a second signal")
    await asyncio.wait((answered, hurried), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    if not answered.done():
        _log.warning("shutting down with %d requests running", scheduler.in_flight)
        lifecycle.give_up()
        await asyncio.wait((answered,), timeout=_TELLING)
    await cancel_and_wait(answered, hurried)


async def _answered(lifecycle: Lifecycle, listeners: Listeners) -> None:
    """Return when no request is being answered, and none is on its way."""
    await lifecycle.quiet()
    if not lifecycle.hands_over:
        return
    expected, looks = listeners.expected, _LOOKS
    # An event for it would cost every request something.
    while any(expected) and looks:
        await asyncio.sleep(_PAUSE)
        looks = looks - 1 if listeners.expected == expected else _LOOKS
        expected = listeners.expected
    await lifecycle.quiet()
