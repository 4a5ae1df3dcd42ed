"""Notices a llama-server that lives and does nothing: stopped, deadlocked, stuck in a driver.

Time alone proves nothing, since a long prompt keeps a slow machine busy for minutes without a
byte of answer. What is looked at instead:

- ``/health``, which llama-server answers from a thread of its own whatever the model is doing.
  Unanswered for ``deaf_after`` seconds, with three tries at least, the process is hung.
- With requests running: the CPU time that the process group uses. Prefill and generation use
  plenty, waiting for a GPU too (a busy wait), and so does sending each token. None for
  ``stuck_after`` seconds, and it is hung.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import NamedTuple

from gateway.backends.usage import group_members
from gateway.errors import GatewayError
from gateway.upstream import UpstreamPool

#: CPU seconds a group must use to count as working; answering /health takes far less.
_WORKING = 0.05


class Patience(NamedTuple):
    """How long a watchdog looks on. Seconds."""

    interval: float = 5.0
    deaf_after: float = 20.0
    stuck_after: float = 120.0


PATIENCE = Patience()


class Watchdog:
    """Watches one running child, whose process group is ``group``."""

    def __init__(self, pool: UpstreamPool, group: int, patience: Patience) -> None:
        self._pool = pool
        self._group = group
        self._interval, self._deaf_after, self._stuck_after = patience

    async def hung(self) -> str:
        """Return what is wrong, when something is; until then this waits."""
        heard = working = time.monotonic()
        misses = 0
        used: float | None = None
        while True:
            await asyncio.sleep(self._interval)
            if await self._answers():
                heard, misses = time.monotonic(), 0
            else:
                misses += 1
                silent = time.monotonic() - heard
                if misses >= 3 and silent >= self._deaf_after:
                    return f"has not answered /health for {silent:.0f} s"
            now = time.monotonic()
            cpu = None
            if self._pool.exchanges:
                cpu = await asyncio.to_thread(cpu_seconds, self._group)
            if cpu is None or used is None or cpu - used > _WORKING:
                working, used = now, cpu
            elif now - working >= self._stuck_after:
                return f"has done nothing for {now - working:.0f} s with requests running"

    async def _answers(self) -> bool:
        try:
            await self._pool.fetch("GET", "/health", timeout=self._interval)
        except GatewayError:
            return False
        return True


def cpu_seconds(group: int, root: Path = Path("/")) -> float | None:
    """CPU time used by the living processes of a group; ``None`` without /proc (proc(5))."""
    ticks = 0
    found = False
    for pid in group_members(group):
        try:
            stat = (root / "proc" / str(pid) / "stat").read_text()
        except OSError:
            continue
        fields = stat[stat.rindex(")") + 2 :].split()
        ticks += int(fields[11]) + int(fields[12])
        found = True
    return ticks / os.sysconf("SC_CLK_TCK") if found else None
