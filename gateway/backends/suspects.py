"""Remembers the requests that may have killed a llama-server, to recognise them when they come
again.

Nothing of a request is kept but a keyed hash, for a while; nothing is computed for a request as
long as none is remembered.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections import OrderedDict
from typing import Final, NamedTuple

#: Seconds for which a suspect is remembered, and how many are remembered.
_REMEMBERED: Final = 600.0
_MOST: Final = 1024
#: After so many deaths by one key's requests within that time, its unusual requests are paused.
_DEATHS: Final = 3
#: Seconds of the first pause; each further death doubles it, up to the last.
_PAUSE: Final = 30.0
_LONGEST_PAUSE: Final = 600.0

#: Signals that come from outside: no request makes a process send itself these.
_FROM_OUTSIDE: Final = frozenset(
    (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
)


def by_request(status: int) -> bool:
    """Return whether a child that was ready, and ended so, may have been ended by a request.

    Negative is a signal, as subprocess has it; 128 and more is one as a wrapper's shell reports it.
    SIGKILL is the system's, for want of memory, or a person's.
    """
    number = -status if status < 0 else status - 128
    return number not in _FROM_OUTSIDE


class _Offender(NamedTuple):
    deaths: int
    last: float
    until: float


class Suspects:
    """The requests that one gateway suspects of ending llama-servers."""

    __slots__ = ("_hashes", "_key", "_offenders")

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._hashes: OrderedDict[bytes, float] = OrderedDict()
        self._offenders: OrderedDict[tuple[str, str], _Offender] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def _hash(self, model: str, target: str, body: bytes) -> bytes:
        made = hashlib.blake2b(key=self._key, digest_size=16)
        for part in (model.encode(), target.partition("?")[0].encode(), body):
            made.update(len(part).to_bytes(8, "big"))
            made.update(part)
        return made.digest()

    def remember(self, key: str, model: str, target: str, body: bytes) -> None:
        """Remember that a request of ``key`` is suspected of a death."""
        now = time.monotonic()
        hashed = self._hash(model, target, body)
        self._hashes.pop(hashed, None)
        self._hashes[hashed] = now + _REMEMBERED
        before = self._offenders.pop((key, model), None)
        deaths = 1 + (before.deaths if before and now - before.last < _REMEMBERED else 0)
        pause = 0.0
        if deaths >= _DEATHS:
            pause = min(_PAUSE * 2.0 ** min(deaths - _DEATHS, 16), _LONGEST_PAUSE)
        self._offenders[key, model] = _Offender(deaths, now, now + pause)
        for memory in (self._hashes, self._offenders):
            while len(memory) > _MOST:
                memory.popitem(last=False)

    def known(self, model: str, target: str, body: bytes) -> float | None:
        """Return seconds for which this request is still refused, if it is one of them."""
        now = time.monotonic()
        while self._hashes and next(iter(self._hashes.values())) <= now:
            self._hashes.popitem(last=False)
        if not self._hashes:
            return None
        until = self._hashes.get(self._hash(model, target, body))
        return None if until is None or until <= now else until - now

    def paused(self, key: str, model: str) -> float | None:
        """Return the seconds for which unusual requests of ``key`` to ``model`` are still refused,
        if they are.
        """
        found = self._offenders.get((key, model))
        if found is None or (left := found.until - time.monotonic()) <= 0:
            return None
        return left
