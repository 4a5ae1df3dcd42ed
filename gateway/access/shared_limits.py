"""The limits of keys that several gateways share: each tells the others what it lets in.

Each counts all of it in buckets of its own, so a request costs what it costs a gateway alone. What
one lets in before it has heard of the others is more than the limits allow, for as long as that
takes. Pure: who carries what is told is :mod:`gateway.access.peers`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from gateway.access.rate_limits import KeyLimits, Limiter

#: Seconds after which requests of a gateway that tells no more of them count as ended.
GONE: Final = 15.0


class Spending(NamedTuple):
    """What a gateway tells of one key: what it has used since it last told, and what runs there."""

    requests: int
    tokens: int
    running: int


class SharedLimits:
    """The limits of a gateway's keys, and what others tell of them."""

    def __init__(
        self,
        limiter: Limiter,
        limits_of: Callable[[str], KeyLimits],
        count_tokens: Callable[[str, int], None],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limiter = limiter
        self._limits_of = limits_of
        self._count_tokens = count_tokens
        self._monotonic = monotonic
        self._touched: set[str] = set()
        #: What runs elsewhere, by gateway and key, and when that was told.
        self._running: dict[tuple[str, str], tuple[int, float]] = {}
        limiter.touched = self._touched

    def news(self) -> dict[str, Spending]:
        """Return what keys have used since the last call."""
        found = {}
        for key_id in self._touched:
            spent = self._limiter.spent(key_id)
            found[key_id] = Spending(spent.asked, spent.taken, spent.running)
            spent.asked = spent.taken = 0
        self._touched.clear()
        return found

    def running(self) -> dict[str, Spending]:
        """Return what is running, for those who have heard nothing of it."""
        return {
            key_id: Spending(0, 0, running) for key_id, running in self._limiter.running().items()
        }

    def hear(self, peer: str, spendings: Mapping[str, Spending]) -> None:
        """Count what another gateway tells of keys."""
        now = self._monotonic()
        for key_id, spending in spendings.items():
            limits = self._limits_of(key_id)
            self._limiter.count(key_id, limits, spending.requests, spending.tokens)
            if spending.tokens:
                self._count_tokens(key_id, spending.tokens)
            self._set_running(peer, key_id, spending.running, now)

    def forget_gone(self) -> None:
        """Forget what ran at gateways that tell nothing any more."""
        now = self._monotonic()
        for (peer, key_id), (_, told) in [*self._running.items()]:
            if now - told >= GONE:
                self._set_running(peer, key_id, 0, now)

    def _set_running(self, peer: str, key_id: str, running: int, now: float) -> None:
        before, _ = self._running.pop((peer, key_id), (0, now))
        if running:
            self._running[peer, key_id] = (running, now)
        self._limiter.spent(key_id).elsewhere += running - before
