"""Measures the speed of a transfer, and estimates its remaining time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

#: The seconds over which the speed is averaged: long enough for a steady number, short enough to be
#: current.
_WINDOW: Final = 10.0
#: Seconds before there is a first estimate.
_LEAST: Final = 0.5


class TransferSpeed:
    """Bytes per second over the last ten seconds. ``clock``: seconds, in any zero."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def saw(self, came: int) -> float | None:
        """Take note that ``came`` bytes have come since the beginning; the speed, once known."""
        now = self._clock()
        self._seen.append((now, came))
        while len(self._seen) > 2 and self._seen[1][0] <= now - _WINDOW:
            self._seen.popleft()
        then, before = self._seen[0]
        return (came - before) / (now - then) if now - then >= _LEAST else None


def seconds_left(left: int, speed: float | None) -> float | None:
    """Return how long ``left`` bytes take; ``None``: nobody knows."""
    return left / speed if speed else None
