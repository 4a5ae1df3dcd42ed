"""Abandoned tasks: what llama-servers go on writing for clients that have left, counted to its end.

llama-server notices that a client has gone only when it has had no result for anybody for a second
(see :mod:`gateway.proxy.cut_off`). So its slots are polled, but seldom enough not to delay that
(:mod:`gateway.backends.slot_looks`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.backends.served import Served
from gateway.errors import GatewayError
from gateway.proxy.cut_off import written
from gateway.tasks import cancel_and_wait, spawn


@dataclass(slots=True)
class _AbandonedTask:
    """A task that goes on: how many tokens were counted, and the callback for further ones."""

    seen: int
    more: Callable[[int], None]


class AbandonedTasks:
    """The tasks that llama-servers still work on although their clients have left."""

    def __init__(self) -> None:
        self._left: dict[Served, dict[int, _AbandonedTask]] = {}
        self._looking: dict[Served, asyncio.Task[None]] = {}

    def follow(
        self, backend: Served, working: Mapping[int, int], more: Callable[[int], None]
    ) -> None:
        """Call ``more`` with the tokens that tasks write from now on.

        ``working``: the number of each task, and how many tokens it had written. A task that is
        followed already keeps its first callback.
        """
        tasks = self._left.setdefault(backend, {})
        for number, seen in working.items():
            tasks.setdefault(number, _AbandonedTask(seen, more))
        if backend not in self._looking:
            self._looking[backend] = spawn(
                self._count_tokens(backend, tasks), name="look at what goes on behind a hang-up"
            )

    async def _count_tokens(self, backend: Served, tasks: dict[int, _AbandonedTask]) -> None:
        try:
            pool = backend.pool
            while tasks:
                said = await backend.slot_looks.next()
                if said is None or backend.pool is not pool:
                    return  # another process numbers its tasks from the start
                now = written(said)
                for number, task in list(tasks.items()):
                    if (tokens := now.get(number)) is None:
                        del tasks[number]
                    elif tokens > task.seen:
                        task.more(tokens - task.seen)
                        task.seen = tokens
        except GatewayError:
            pass  # there is no process any more
        finally:
            del self._left[backend], self._looking[backend]

    async def close(self) -> None:
        """Look no more."""
        await cancel_and_wait(*self._looking.values())
