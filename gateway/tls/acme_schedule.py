"""When to renew a certificate, and when to ask again after a failure. Pure.

Let's Encrypt allows (https://letsencrypt.org/docs/rate-limits/) 5 failed validations of a name an
hour, and 5 certificates for the same names in 7 days, one more every 34 hours.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_HOUR = 3600.0
#: The bounds, in seconds, within which a server's Retry-After is followed (RFC 9773, 4.3.2).
_ASK_AGAIN = (60.0, 86400.0)


@dataclass(frozen=True, slots=True)
class Pace:
    """The pace at which new tries follow failures. Seconds."""

    first_retry: float = 900.0
    longest_retry: float = 12 * _HOUR
    #: Attempts in any hour, across restarts: one fewer than Let's Encrypt allows to fail.
    tries_an_hour: int = 4
    #: The wait after an unusable certificate: a further one would count towards the authority's
    #: limits, too.
    after_unusable: float = 34 * _HOUR

    def wait(self, failures: int) -> float:
        """Return the seconds to wait after the last of ``failures`` failures in a row."""
        grown = self.first_retry * 2.0 ** min(failures - 1, 30)
        return min(grown, self.longest_retry) * random.uniform(1.0, 1.2)  # noqa: S311

    def permitted(self, tries: Sequence[float], now: float) -> float:
        """Return the time of the first try that the limit allows; ``tries`` and result:
        POSIX time.
        """
        recent = sorted(time for time in tries if now - _HOUR < time <= now)
        if len(recent) < self.tries_an_hour:
            return now
        return recent[-self.tries_an_hour] + _HOUR


def renewal_due(start: datetime, end: datetime, serial: int) -> datetime:
    """Return the time two thirds into a certificate's life, or a little later.

    The jitter (up to a thirtieth of the life: three days of ninety) comes from the serial number,
    so that a restart does not move the time.
    """
    jitter = random.Random(serial).random()  # noqa: S311 - spreads load, guards nothing
    return start + (end - start) * (2 / 3 + jitter / 30)


def with_advice(start: datetime, end: datetime, own: datetime, advised: datetime | None) -> float:
    """Return the POSIX time of the renewal, given the authority's advice ``advised`` (ARI, RFC
    9773).

    The authority may ask for it earlier than ``own`` (it is going to revoke the certificate) or
    later, but not later than a tenth before the end.
    """
    return min(advised or own, end - (end - start) / 10).timestamp()


def ask_again(now: float, wished: datetime) -> float:
    """Return when to ask for the authority's advice again (POSIX). ``wished``: local time,
    naive.
    """
    least, most = _ASK_AGAIN
    return now + min(max(wished.timestamp() - now, least), most)


def day(time: float) -> str:
    """Return a POSIX time for people: minutes, UTC."""
    return f"{datetime.fromtimestamp(time, UTC) + timedelta(seconds=30):%Y-%m-%d %H:%M} UTC"
