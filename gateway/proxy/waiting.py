"""Waits for a model, measures the wait, and tells the client its stage and place meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway.backends.backend import State
from gateway.backends.lease import Lease
from gateway.backends.scheduler import Scheduler
from gateway.proxy.call import Outcome

#: What a request waits for by the state of its model, unless it waits for room or for a slot.
_WORDS = {State.STARTING: b"starting", State.BACKOFF: b"restarting"}


async def lease(scheduler: Scheduler, model: str, outcome: Outcome) -> Lease:
    """Do the same as :meth:`Scheduler.lease`, and note in ``outcome`` what the time was spent
    on.
    """
    since = time.monotonic()
    try:
        return await scheduler.lease(model)
    finally:
        backend = scheduler.backend(model)
        if backend is not None:
            outcome.loading += backend.starting_within(since)
        outcome.leased = time.perf_counter()


def in_words(scheduler: Scheduler, model: str) -> Callable[[], bytes]:
    """Return what says where the request of the current task stands, at any moment of its wait."""
    task = asyncio.current_task()
    assert task is not None

    def words() -> bytes:
        place = scheduler.waiting(model, task)
        return b"%b, position %d" % (_WORDS.get(place.stage, b"queued"), place.position)

    return words
