"""What a driver of faults is."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tests.soak.allowed import Ledger
from tests.soak.door import Door, Kind


class Strike(NamedTuple):
    """Where and with what a driver works. ``pace``: how many times as fast as usual."""

    door: Door
    ledger: Ledger
    chance: random.Random
    pace: float = 1.0

    def seconds(self, least: float, most: float) -> float:
        """How long a fault lasts."""
        return self.chance.uniform(least, most) / self.pace


class Driver(NamedTuple):
    """``strike`` brings a fault about, about every so many seconds, at doors it is ``meant_for``.

    It returns when the fault is over, and has then looked whether all is well again.
    """

    every: float
    strike: Callable[[Strike], Awaitable[None]]
    meant_for: Callable[[Kind], bool] = lambda _kind: True
