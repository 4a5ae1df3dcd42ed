"""Watches a llama-server for memory that it takes beyond what was measured when it was loaded.

Caches of old prompts, contexts that are touched bit by bit, requests that make it take memory: what
it holds now isn't there for the next model, whatever it was said to need.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from gateway.backends.placement import Placement
from gateway.backends.ram import RAM
from gateway.backends.usage import memory_kept, memory_used

#: How much more than was measured is worth a warning, in bytes and as a share of it.
_WORTH_BYTES, _WORTH_PART = 256 * 2**20, 0.1


class HeldMemory(NamedTuple):
    """The memory that a model's process group holds, in bytes; ``None`` where that can't be
    seen.
    """

    size: int | None  # where its need is measured: of GPUs if it has any, else of RAM
    kept: int | None  # of RAM, without files that are only mapped; of a model on GPUs alone


class Growth:
    """The growth of one loaded model, whose process group is ``group`` and which was placed
    ``on``.
    """

    def __init__(self, group: int, on: Placement) -> None:
        self._group = group
        self._on = on
        self._on_gpus = any(name != RAM for name, _ in on)
        self._first: HeldMemory | None = None
        self.now = HeldMemory(None, None)
        self._told = False

    async def look(self) -> Placement:
        """Measure what it holds now, and return that by device. The first measurement is after its
        load.

        Never less than it was measured to take: what it gave back it may take again.
        """
        self.now = now = await asyncio.to_thread(self.see)
        first = self._first = self._first or now
        planned = sum(size for name, size in self._on if self._counts(name))
        more = max((now.size or 0) - planned, 0) if planned else 0
        beside = max((now.kept or 0) - (first.kept or 0), 0)
        return tuple(
            (name, size + (more * size // max(planned, 1) if self._counts(name) else beside))
            for name, size in self._on
        )

    def worth_telling(self, on: Placement) -> int | None:
        """Return bytes by which it has grown, if that is much, and wasn't told before."""
        before = sum(size for _, size in self._on)
        more = sum(size for _, size in on) - before
        if self._told or more <= max(_WORTH_BYTES, _WORTH_PART * before):
            return None
        self._told = True
        return more

    def _counts(self, name: str) -> bool:
        return not self._on_gpus or name != RAM

    def see(self) -> HeldMemory:
        """Return what the processes hold now. Blocks."""
        size = memory_used(self._group, gpu=self._on_gpus)
        return HeldMemory(size, memory_kept(self._group, gpu=False) if self._on_gpus else None)
