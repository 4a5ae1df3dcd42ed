"""The limits of a key, what it has used of them, and whether it may send one more request. In
memory.

That is asked before anything is done for a request, so one that is wrong counts as well; what the
limits themselves refuse doesn't, or who comes back too soon would never be let in again.

Requests and tokens per minute are token buckets (RFC 2697 has the idea): full at first, refilled
evenly. With 60 requests per minute, 60 may come at once, then one a second. A bucket is two
numbers, where a sliding window is a list of times; it has no jump at the turn of the minute; and
OpenAI's reset headers ask just what a bucket knows, when it will be full again. The price: in its
first minute a key may use up to twice its limit.

How many tokens an answer takes is known when it has ended. So a request is let in while the
bucket isn't empty, and its answer may overdraw it; the debt has to refill before the next one.
Tokens per day are those of the day in UTC, which accounting counts, also across a restart.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple

from gateway.errors import RateLimited
from gateway.plurals import counted

DAY: Final = 86_400  # seconds
_MINUTE: Final = 60.0
_ROUNDING: Final = 1e-3  # of a request: clocks are floating-point numbers


def _limit(about: str, *, of_each: bool = False) -> Any:
    """Return a limit of what a key uses in all, or ``of_each`` of its requests;
    ``about``: of what.
    """
    return field(default=None, metadata={"about": about, "of_each": of_each})


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """The limits of one key. ``None``: no limit."""

    rpm: int | None = _limit("requests per minute")
    tpm: int | None = _limit("tokens per minute, in and out")
    tpd: int | None = _limit("tokens per day (UTC), in and out")
    concurrency: int | None = _limit("requests at once")
    max_tokens: int | None = _limit("tokens of an answer", of_each=True)
    max_seconds: int | None = _limit("until its answer is cut off", of_each=True)


LIMIT_NAMES: Final = tuple(limit.name for limit in fields(KeyLimits))
#: The limits of a key that has none. Compared by identity, on every request.
NO_LIMITS: Final = KeyLimits()


class Left(NamedTuple):
    """What is left of one limit: negative after an answer that took more than there was."""

    limit: int
    left: int
    reset_seconds: float | None  # until all of it is back; None: when something ends


class _Bucket:
    """The used part of a limit per minute, which shrinks with time."""

    __slots__ = ("_at", "_used")

    def __init__(self) -> None:
        self._used = 0.0
        self._at = 0.0

    def used(self, limit: int, now: float) -> float:
        used = self._used - (now - self._at) * limit / _MINUTE
        self._at = now
        self._used = used = max(used, 0.0)
        return used

    def add(self, amount: int) -> None:
        self._used += amount


class _Spent:
    """The usage of one key."""

    __slots__ = (
        "asked",
        "elsewhere",
        "requests",
        "reserved",
        "running",
        "streams",
        "taken",
        "tokens",
    )

    def __init__(self) -> None:
        self.requests = _Bucket()
        self.tokens = _Bucket()
        self.running = 0
        self.streams = 0  # those of what is running that are streams of events
        self.reserved = 0  # tokens of requests that have ended, and are still being counted
        # Where other gateways have the same keys: requests and tokens that they haven't been told
        # of, and how many of the key's requests are running there.
        self.asked = 0
        self.taken = 0
        self.elsewhere = 0


class Limiter:
    """The usage of all keys with limits. It costs a few dictionary lookups a request.

    ``tokens_today(key_id)`` counts tokens of this UTC day; the clocks are in seconds. It holds
    a few numbers for each key that has limits and was used, so keys bound it.
    """

    def __init__(
        self,
        tokens_today: Callable[[str], int],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._tokens_today = tokens_today
        self._monotonic = monotonic
        self._wall = wall
        self._spent: dict[str, _Spent] = {}
        #: Where other gateways have the same keys: those that have used something.
        self.touched: set[str] | None = None

    def admit(self, key_id: str, limits: KeyLimits) -> LimitGrant:
        """Let one request in, or raise :class:`RateLimited`. The grant must be closed."""
        spent = self._spent.get(key_id)
        if spent is None:
            spent = self._spent[key_id] = _Spent()
        grant = LimitGrant(self, key_id, limits, spent)
        self._check(grant)
        spent.running += 1
        if limits.rpm is not None:
            spent.requests.add(1)
        spent.asked += 1
        self.touch(key_id)
        return grant

    @contextlib.contextmanager
    def stream(
        self, key_id: str, limits: KeyLimits, most: int, *, at_once: bool = True
    ) -> Iterator[None]:
        """Let in a stream of events, which is one of its key's requests at once, for all its time;
        not ``at_once``: the request whose answer it shows is one of them already.

        A key may have ``most`` of them. Raises :class:`RateLimited`.
        """
        spent = self._spent.get(key_id)
        if spent is None:
            spent = self._spent[key_id] = _Spent()
        if (running := limits.concurrency) is not None and (
            at_once and spent.running + spent.elsewhere >= running
        ):
            grant = LimitGrant(self, key_id, limits, spent)
            raise self._refusal(grant, "concurrency", counted(running, "request", " at once"), 1.0)
        if spent.streams >= most:
            raise RateLimited(
                f"this key may have {counted(most, 'stream')} of events open at once "
                "(limits.streams_per_key): close one first",
                param="streams_per_key",
                code="too_many_streams",
            )
        spent.streams += 1
        spent.running += at_once
        self.touch(key_id)
        try:
            yield
        finally:
            spent.streams -= 1
            spent.running -= at_once
            self.touch(key_id)

    def _check(self, grant: LimitGrant) -> None:
        """Raise if a limit is used up: of several the one that takes longest to come back.

        A refused request uses nothing.
        """
        limits, spent = grant.limits, grant.spent
        now = self._monotonic()
        over: list[tuple[float, str, str]] | None = None  # seconds to wait, which, in words
        if (rpm := limits.rpm) is not None:
            excess = spent.requests.used(rpm, now) - (rpm - 1)
            if excess > _ROUNDING:
                over = [(excess * _MINUTE / rpm, "rpm", counted(rpm, "request", " per minute"))]
        if (tpm := limits.tpm) is not None:
            excess = spent.tokens.used(tpm, now) + spent.reserved - tpm
            if excess >= 0:
                wait = (excess + 1) * _MINUTE / tpm
                over = [*(over or ()), (wait, "tpm", counted(tpm, "token", " per minute"))]
        if (tpd := limits.tpd) is not None and (
            self._tokens_today(grant.key_id) + spent.reserved >= tpd
        ):
            over = [
                *(over or ()),
                (self._day_left(), "tpd", counted(tpd, "token", " per day (UTC)")),
            ]
        if (running := limits.concurrency) is not None and (
            spent.running + spent.elsewhere >= running
        ):
            # When one of them ends is not known: soon, in most cases.
            over = [*(over or ()), (1.0, "concurrency", counted(running, "request", " at once"))]
        if over is not None:
            wait, limit, allowed = max(over)
            raise self._refusal(grant, limit, allowed, wait)

    def _refusal(self, grant: LimitGrant, limit: str, allowed: str, wait: float) -> RateLimited:
        seconds = max(1, math.ceil(wait))
        headers = {"Retry-After": str(seconds), **grant.headers()}
        if limit == "tpd":
            headers["x-should-retry"] = "false"  # OpenAI's clients would, two seconds later
        return RateLimited(
            f"this key may use {allowed} ({limit}): try again in {span(seconds)}",
            param=limit,
            headers=headers,
        )

    def left(self, key_id: str, limits: KeyLimits) -> dict[str, Left]:
        """Return what is left of each of ``limits`` that is used up by and by, at this moment."""
        spent, now = self._spent.get(key_id) or _Spent(), self._monotonic()
        left = {}
        if (rpm := limits.rpm) is not None:
            used = spent.requests.used(rpm, now)
            left["rpm"] = Left(rpm, int(rpm - used + _ROUNDING), used * _MINUTE / rpm)
        if (tpm := limits.tpm) is not None:
            used = spent.tokens.used(tpm, now)
            left["tpm"] = Left(tpm, int(tpm - used - spent.reserved), used * _MINUTE / tpm)
        if (tpd := limits.tpd) is not None:
            used = self._tokens_today(key_id) + spent.reserved
            left["tpd"] = Left(tpd, int(tpd - used), self._day_left())
        if (running := limits.concurrency) is not None:
            left["concurrency"] = Left(running, running - spent.running - spent.elsewhere, None)
        return left

    # --- where other gateways have the same keys: see gateway.access.shared_limits -------------

    def touch(self, key_id: str) -> None:
        """Note that the usage of the key has changed."""
        if self.touched is not None:
            self.touched.add(key_id)

    def spent(self, key_id: str) -> _Spent:
        """Return the usage of a key."""
        return self._spent.setdefault(key_id, _Spent())

    def running(self) -> dict[str, int]:
        """Return how many requests of each key are running, of those that have any."""
        return {key_id: spent.running for key_id, spent in self._spent.items() if spent.running}

    def count(self, key_id: str, limits: KeyLimits, requests: int, tokens: int) -> None:
        """Count what a key has used elsewhere."""
        spent, now = self.spent(key_id), self._monotonic()
        if limits.rpm is not None:
            spent.requests.used(limits.rpm, now)
            spent.requests.add(requests)
        if limits.tpm is not None:
            spent.tokens.used(limits.tpm, now)
            spent.tokens.add(tokens)

    def _day_left(self) -> float:
        return DAY - self._wall() % DAY

    def headers(self, grant: LimitGrant) -> dict[str, str]:
        """Return the ``x-ratelimit-*`` headers of this moment, as OpenAI describes them."""
        limits, spent = grant.limits, grant.spent
        now = self._monotonic()
        headers = {}
        if (rpm := limits.rpm) is not None:
            used = spent.requests.used(rpm, now)
            headers["x-ratelimit-limit-requests"] = str(rpm)
            headers["x-ratelimit-remaining-requests"] = str(max(0, int(rpm - used + _ROUNDING)))
            headers["x-ratelimit-reset-requests"] = span(used * _MINUTE / rpm)
        tokens: list[tuple[int, int, float]] = []  # left, limit, seconds until all is back
        if (tpm := limits.tpm) is not None:
            used = spent.tokens.used(tpm, now)
            tokens.append((int(tpm - used), tpm, used * _MINUTE / tpm))
        if (tpd := limits.tpd) is not None:
            tokens.append((tpd - self._tokens_today(grant.key_id), tpd, self._day_left()))
        if tokens:
            # There is one set of headers for two limits: that which ends first.
            left, limit, reset = min(tokens)
            headers["x-ratelimit-limit-tokens"] = str(limit)
            headers["x-ratelimit-remaining-tokens"] = str(max(0, left))
            headers["x-ratelimit-reset-tokens"] = span(reset)
        return headers


class LimitGrant:
    """One request that was let in. Close it once, with the tokens it took."""

    __slots__ = ("_left", "_limiter", "key_id", "limits", "spent")

    def __init__(self, limiter: Limiter, key_id: str, limits: KeyLimits, spent: _Spent) -> None:
        self._limiter = limiter
        self._left = False
        self.key_id = key_id
        self.limits = limits
        self.spent = spent

    def headers(self) -> dict[str, str]:
        """Return the ``x-ratelimit-*`` headers of this moment."""
        return self._limiter.headers(self)

    def give_back(self) -> None:
        """Undo the charge for a request that failed through no fault of its client."""
        if self.limits.rpm is not None:
            self.spent.requests.add(-1)
        self.spent.asked -= 1
        self._limiter.touch(self.key_id)

    def answered(self, status: int) -> None:
        """Settle a request that reached no model, and so took no tokens, when it has been answered.

        It still counts as a request, unless the failure wasn't its client's fault.
        """
        if not self._left:
            self.leave()
            if status >= 500:
                self.give_back()

    def leave(self) -> None:
        """Free the request's place; :meth:`close` counts its tokens later."""
        if not self._left:
            self._left = True
            self.spent.running -= 1
            self._limiter.touch(self.key_id)

    def reserve(self, tokens: int) -> None:
        """Hold so many back until it is known how many it took; a negative number lets go."""
        self.spent.reserved += tokens

    def close(self, tokens: int) -> None:
        """Count the tokens of a request that has ended; called again, add further ones."""
        self.leave()
        if self.limits.tpm is not None:
            self.spent.tokens.add(tokens)
        self.spent.taken += tokens
        self._limiter.touch(self.key_id)


def span(seconds: float) -> str:
    """Return a time as OpenAI's headers have it: ``6m0s``, ``1s``, ``120ms``, ``0s``."""
    if seconds < 1:
        milliseconds = math.ceil(seconds * 1000)
        if milliseconds < 1000:
            return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, left = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{left}s"
    return f"{minutes}m{left}s" if minutes else f"{left}s"
