"""A limit on log lines that anybody without a key can cause: a burst, then a rate.

Without it a stranger fills a disk, or hides other lines among 20,000. Lines that are left out are
counted and reported. Only lines that anybody can cause are limited: those of requests with a key,
and of the gateway's own doings, are all written.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

#: The bound on lines about requests without a key: a burst, and a rate per second.
REQUESTS: Final = (100, 20.0)
#: The bound on other lines that a client may cause; some are tracebacks of thirty lines.
EVENTS: Final = (20, 2.0)
#: Seconds between two lines that tell how many were left out.
TELL_EVERY: Final = 10.0

#: What stands in place of a key if there is none, or none is needed.
_NO_KEY = "-"
_ANONYMOUS = "anonymous"
#: The loggers of connections. Their warnings come once a minute at most.
_CLIENTS = frozenset(
    {
        "gateway.http.connections",
        "gateway.http.fast_json",
        "gateway.http.client_connection",
        "gateway.pipeline.steps",
        "gateway.http.aiohttp_connection",
        "gateway.tasks",  # one is spawned for each handshake
        "gateway.http.tls_port",
    }
)
#: The loggers of the event loop, and of unraisable errors, which are never about one request alone.
_LOOP = frozenset({"asyncio", "gateway.unraisable"})


class Allowance:
    """A token bucket: ``burst`` lines at once, then ``rate`` a second. Seconds of ``clock``.

    It has no lock: if threads ask at the same moment, the count may be wrong by one line.
    """

    def __init__(
        self, burst: int, rate: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst = float(burst)
        self._rate = rate
        self._clock = clock
        self._left = self._burst
        self._at = clock()
        self._told = 0
        #: The number of lines left out so far.
        self.left_out = 0

    def take(self) -> bool:
        """Return whether one more line may be written; if not, it is counted."""
        now = self._clock()
        left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if left < 1.0:
            self._left = left
            self.left_out += 1
            return False
        self._left = left - 1.0
        return True

    def untold(self) -> int:
        """Return how many lines were left out since the last call."""
        total = self.left_out
        new, self._told = total - self._told, total
        return new


def is_a_strangers(key: str, status: int) -> bool:
    """Return whether the line of a request with ``key`` (its id) and ``status`` is limited.

    If no keys are needed (``auth.enabled: false``), those of refused requests are.
    """
    return key == _NO_KEY or (key == _ANONYMOUS and 400 <= status < 500)


def is_a_clients(record: logging.LogRecord) -> bool:
    """Return whether any client could have caused ``record``, again and again."""
    if record.name in _LOOP:
        return True
    return record.name in _CLIENTS and (
        record.levelno < logging.WARNING or record.exc_info is not None
    )
