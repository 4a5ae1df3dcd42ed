"""What a client is told whose request waits for its model: the stage, its place in the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.backends.backend import State
from gateway.backends.scheduler import Scheduler

#: What is waited for, where it is not for others to make room, or to be done.
_WORDS = {State.STARTING: b"starting", State.BACKOFF: b"restarting"}


def in_words(scheduler: Scheduler, model: str) -> Callable[[], bytes]:
    """What says where the request of the current task stands, at any moment of its wait."""
    task = asyncio.current_task()
    assert task is not None

    def words() -> bytes:
        place = scheduler.waiting(model, task)
        return b"%b, position %d" % (_WORDS.get(place.stage, b"queued"), place.position)

    return words
