"""Notices a llama-server that lives and does nothing: stopped, deadlocked, stuck in a driver.

Time alone proves nothing, since a long prompt keeps a slow machine busy for minutes without a
byte of answer. What is looked at instead:

- ``/health``, which llama-server answers from a thread of its own whatever the model is doing.
  Unanswered for ``deaf_after`` seconds, with three tries at least, the process is hung.
- With requests running: bytes that come, and CPU time that the process group uses (waiting for a
  GPU counts too, it is a busy wait). Neither for ``stuck_after`` seconds, and it is hung.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from gateway.backends.machine import group_members
from gateway.errors import GatewayError
from gateway.upstream import UpstreamPool

#: CPU seconds a group must use between two looks to count as working; idle threads use less.
_WORKING = 0.05


class Watchdog:
    """Watches one running child. Times in seconds.

    ``busy`` says whether requests are running; ``received`` counts bytes that came from it.
    """

    def __init__(
        self,
        pool: UpstreamPool,
        group: int,
        *,
        busy: Callable[[], bool],
        received: Callable[[], int],
        interval: float = 5.0,
        deaf_after: float = 20.0,
        stuck_after: float = 120.0,
    ) -> None:
        self._pool = pool
        self._group = group
        self._busy = busy
        self._received = received
        self._interval = interval
        self._deaf_after = deaf_after
        self._stuck_after = stuck_after

    async def hung(self) -> str:
        """Return what is wrong, when something is; until then this waits."""
        heard = progressed = time.monotonic()
        last = (-1, -1.0)
        misses = 0
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
            if not self._busy():
                progressed, last = now, (-1, -1.0)
                continue
            cpu = await asyncio.to_thread(cpu_seconds, self._group)
            received = self._received()
            if last[0] != received or cpu is None or cpu - last[1] > _WORKING:
                progressed = now
                last = (received, cpu or 0.0)
            elif now - progressed >= self._stuck_after:
                return f"has made no progress for {now - progressed:.0f} s with requests running"

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
    for pid in group_members(group, root):
        try:
            stat = (root / "proc" / str(pid) / "stat").read_text()
        except OSError:
            continue
        fields = stat[stat.rindex(")") + 2 :].split()
        ticks += int(fields[11]) + int(fields[12])
        found = True
    return ticks / os.sysconf("SC_CLK_TCK") if found else None
