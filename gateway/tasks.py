"""The only place that creates tasks: each is named, referenced, and its crash is logged.

A bare ``asyncio.create_task`` may be garbage-collected while it runs, and its exception is
reported when nobody looks any more (asyncio documentation, "Creating Tasks"); ruff bans it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
_log = logging.getLogger(__name__)
_running: set[asyncio.Task[Any]] = set()


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
