"""The lag of the event loop: how late its timers are, because something else keeps it busy.

Measured only while somebody scrapes: a few minutes after the last scrape its timer stops.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from itertools import accumulate
from typing import Final

from gateway.access.measures import Histogram

#: Upper bounds, in seconds.
_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
#: Seconds between two timers, and for which they go on after a scrape.
EVERY: Final = 0.25
_GOES_ON: Final = 600.0


class LoopLag:
    """A measurement of one event loop, begun by :meth:`look`."""

    def __init__(self, *, goes_on: float = _GOES_ON) -> None:
        self._goes_on = goes_on
        self._counts = [0] * (len(_BOUNDS) + 1)
        self._total = 0.0
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def measures(self) -> bool:
        """Whether its timer runs."""
        return self._timer is not None

    def look(self) -> Histogram:
        """Return what has been measured so far, and measure on for a while."""
        loop = asyncio.get_running_loop()
        self._until = loop.time() + self._goes_on
        if self._timer is None:
            self._set(loop)
        return Histogram(_BOUNDS, tuple(accumulate(self._counts)), self._total)

    def close(self) -> None:
        """Stop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + EVERY
        self._timer = loop.call_at(due, self._measure, loop, due)

    def _measure(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = loop.time()
        lag = max(now - due, 0.0)
        self._counts[bisect_left(_BOUNDS, lag)] += 1
        self._total += lag
        self._timer = None
        if now < self._until:
            self._set(loop)
