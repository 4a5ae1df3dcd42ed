"""Wrong keys, counted by address: after too many of them, no more guesses are checked.

Only guesses suffer. A key that this gateway made is 256 random bits, which nobody guesses, so it
is looked up and works whoever else sits behind the same address: an attacker in the same house
locks nobody out. An imported key may be short enough to be guessed; from an address with too many
wrong keys it works only if it worked from there before. To a guesser both look the same as a
wrong key, so from 20 guesses a minute on nothing can be learned.

Looking up costs a SHA-256 of a short text, half a microsecond, which is less than any filter in
front of it (the checksum in our keys takes ten times as long). What a flood does cost are log
lines, so a refused guess writes none: there is one a minute that says how many there were.
"""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from gateway.errors import RateLimited
from gateway.http.networks import network_of

#: Wrong keys that one address may send per minute. A bucket: as many at once, then one in 3 s.
ALLOWED: Final = 20
#: How many addresses are remembered, the latest ones: about a megabyte.
ADDRESSES: Final = 4096

_MINUTE: Final = 60.0
_log = logging.getLogger(__name__)


class TooManyWrongKeys(RateLimited):
    """429: this address has sent too many wrong keys. It doesn't say whether this key is wrong."""

    default_code = "too_many_wrong_keys"


class WrongKeys:
    """Counts wrong keys by address. The clock is in seconds."""

    def __init__(
        self,
        *,
        allowed: int = ALLOWED,
        addresses: int = ADDRESSES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allowed = allowed
        self._size = addresses
        self._clock = clock
        # By network: how much of the allowance is used, and when that was so. Latest at the end.
        self._counts: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        # Imported keys, and networks where they worked.
        self._known: OrderedDict[tuple[bytes, str], None] = OrderedDict()
        self._refused = 0
        self._say_at = -math.inf

    def wrong(self, address: str | None) -> None:
        """Count a wrong key. Raises :class:`TooManyWrongKeys` instead where there were too many."""
        network = network_of(address)
        if network is None:
            return
        now = self._clock()
        used = self._used(network, now)
        if used > self._allowed - 1:
            raise self._refusal(address, used - (self._allowed - 1), now)
        self._counts[network] = (used + 1, now)
        self._counts.move_to_end(network)
        if len(self._counts) > self._size:
            self._counts.popitem(last=False)

    def right(self, address: str | None, key_id: str) -> None:
        """Note a right imported key. Raises :class:`TooManyWrongKeys` where it may be a guess."""
        network = network_of(address)
        if network is None:
            return
        pair = (network, key_id)
        if pair not in self._known:
            now = self._clock()
            used = self._used(network, now)
            if used > self._allowed - 1:
                raise self._refusal(address, used - (self._allowed - 1), now)
            self._known[pair] = None
            if len(self._known) > self._size:
                self._known.popitem(last=False)
        self._known.move_to_end(pair)

    def _used(self, network: bytes, now: float) -> float:
        used, at = self._counts.get(network, (0.0, now))
        return max(0.0, used - (now - at) * self._allowed / _MINUTE)

    def _refusal(self, address: str | None, over: float, now: float) -> TooManyWrongKeys:
        self._refused += 1
        if now >= self._say_at:
            _log.warning(
                "too many wrong API keys: %d refused without a try, the last from %s",
                self._refused,
                address,
            )
            self._refused = 0
            self._say_at = now + _MINUTE
        wait = max(1, math.ceil(over * _MINUTE / self._allowed))
        return TooManyWrongKeys(
            f"too many wrong API keys from this address: check the key, and try again in {wait} s",
            # A wrong key doesn't get better: OpenAI's clients need not try it again.
            headers={"Retry-After": str(wait), "x-should-retry": "false"},
        )
