"""What goes on in the background until it is over, also when nobody waits for it."""

from __future__ import annotations

import asyncio
from typing import Any


class Pending:
    """The tasks of one folder."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def keep_track(self, task: asyncio.Task[Any]) -> None:
        """Have :meth:`over` wait for ``task``."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def over(self) -> None:
        """Return when there is nothing more."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))
