"""The only place that creates tasks: each is named, referenced, and its crash is logged.

A bare ``asyncio.create_task`` may be garbage-collected while it runs, and its exception is
reported when nobody looks any more (asyncio documentation, "Creating Tasks"); ruff bans it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")
_log = logging.getLogger(__name__)
_running: set[asyncio.Task[Any]] = set()

#: Seconds until lasting work that crashed begins anew: at first, and at most.
_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0


def spawn(coro: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
    """Run ``coro`` as a task called ``name``, keeping it alive until it ends."""
    task = asyncio.get_running_loop().create_task(coro, name=name)
    _running.add(task)
    task.add_done_callback(_finished)
    return task


def _finished(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("task %s crashed", task.get_name(), exc_info=error)


def spawn_lasting(
    work: Callable[[], Coroutine[Any, Any, None]], *, name: str, pause: float = _PAUSE
) -> asyncio.Task[None]:
    """Run ``work()`` as a task that a crash doesn't end: it is logged, and ``work`` begins anew.

    This is for what a long-lived process can't do without, such as a watcher. ``pause``: seconds
    until it begins anew, doubled by each crash that follows soon, up to a minute. The task ends
    when ``work`` returns, or is cancelled.
    """
    return spawn(_last(work, name, pause), name=name)


async def _last(work: Callable[[], Coroutine[Any, Any, None]], name: str, first: float) -> None:
    pause = first
    while True:
        began = time.monotonic()
        try:
            await work()
        except Exception:
            if time.monotonic() - began > _LONGEST_PAUSE:
                pause = first
            _log.exception("task %s crashed, it begins anew in %.3g s", name, pause)
        else:
            return
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def done() -> asyncio.Future[None]:
    """Return what can be awaited and is over already."""
    future = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future


async def cancel_and_wait(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel the tasks and wait until each has ended; their outcome is not raised here."""
    alive = [task for task in tasks if task is not None and not task.done()]
    for task in alive:
        task.cancel()
    if alive:
        await asyncio.wait(alive)
