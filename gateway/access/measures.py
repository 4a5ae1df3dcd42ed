"""Requests to models, counted for metrics: in plain numbers, where the record of each is made.

A counter of a metrics library costs more than the whole request may (it locks, and looks up labels
by name), so what is exposed is made of these numbers when somebody asks (:mod:`gateway.metrics`).
Counted from the start of the gateway. Pure.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, Final, NamedTuple

from gateway.proxy.routes import TABLE

#: Stands for a model, key or route where there are too many of them, or it is none of ours.
OTHER: Final = "other"
#: How many sets of labels there may be: every one costs memory here, and more in Prometheus.
_MOST: Final = 5_000
#: Seconds between two removals of what is gone, while it is full.
_PRUNE_EVERY: Final = 60.0
#: The routes by which requests come to models: their paths at llama-server, and one of ours.
ROUTES: Final = frozenset({route.target for route in TABLE if not route.refused} | {"/chat/ask"})

#: Upper bounds in seconds: of waits and whole requests,
WAITS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
#: and of the time from one token to the next.
GAPS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
_OK: Final = 200
#: How many requests are counted at once: a fraction of a millisecond.
_BATCH: Final = 256


class Histogram(NamedTuple):
    """Cumulated numbers of values up to each of ``bounds`` and, as the last one, of all."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class Requests(NamedTuple):
    """How many requests there were of one kind, and the tokens that they took."""

    model: str
    key_id: str
    route: str
    status: int
    requests: int
    prompt: int
    cached: int
    generated: int


class ModelTimes(NamedTuple):
    """The times of the requests to one model, in seconds."""

    queue: Histogram
    load: Histogram
    first_token: Histogram
    gap: Histogram
    total: Histogram


class _Times:
    """The times of one model's requests: numbers by bucket, and after those the sum.

    Most requests don't wait: their waits are only counted, ``at_once``.
    """

    __slots__ = ("at_once", "first_token", "gap", "load", "queue", "total")

    def __init__(self) -> None:
        self.at_once = 0
        self.queue, self.load, self.first_token, self.total = (
            [0.0] * (len(WAITS) + 2) for _ in range(4)
        )
        self.gap = [0.0] * (len(GAPS) + 2)

    def wait(self, waited: float, loading: float) -> None:
        """Count the wait of a request: for its model, and for a slot or another model's place."""
        load = loading if loading < waited else waited
        for times, seconds in ((self.queue, waited - load), (self.load, load)):
            times[bisect_left(WAITS, seconds)] += 1
            times[-1] += seconds

    def taken(self) -> ModelTimes:
        """Return them as they are now."""
        return ModelTimes(
            _histogram(WAITS, self.queue, self.at_once),
            _histogram(WAITS, self.load, self.at_once),
            _histogram(WAITS, self.first_token),
            _histogram(GAPS, self.gap),
            _histogram(WAITS, self.total),
        )


def _histogram(bounds: tuple[float, ...], times: list[float], zeros: int = 0) -> Histogram:
    """Return ``times``, and so many ``zeros`` beside them."""
    counts = [int(number) for number in times[:-1]]
    counts[0] += zeros
    return Histogram(bounds, tuple(accumulate(counts)), times[-1])


class RequestMeasures:
    """The counters. Once there are too many, those that are gone are dropped, and the rest of what
    comes counts as :data:`OTHER`.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        #: Says whether a model or a key, named by its id, is there no more.
        self.gone: Callable[[str, str], bool] = lambda model, key_id: False
        # requests, prompt, cached and generated tokens, by key, model, route and status
        self._requests: dict[tuple[str, str, str, int], list[int]] = {}
        self._late: dict[tuple[str, str], int] = {}  # generated tokens that were found later
        self._times: dict[str, _Times] = {}
        self._fresh: list[tuple[Any, ...]] = []
        self._monotonic = monotonic
        self._pruned = -_PRUNE_EVERY

    # --- for each request ------------------------------------------------------------------

    def add(self, fields: tuple[Any, ...]) -> None:
        """Count a request that has ended: the fields of its :class:`Record`."""
        fresh = self._fresh
        fresh.append(fields)
        if len(fresh) >= _BATCH:
            self._count()

    def _count(self) -> None:
        """Count what has come since the last time.

        Many at once cost each half of what it would cost by itself.
        """
        requests, known, bucket, waits, gaps = (
            self._requests,
            self._times,
            bisect_left,
            WAITS,
            GAPS,
        )
        # fmt: off
        for (_, key_id, model, _, status, (prompt, generated, cached, speed), seconds, route, _, _,
             streamed, _, _, sent, waited, loading, began, _) in self._fresh:
            # fmt: on
            try:
                counts = requests[key_id, model, route, status]
                times = known[model]
            except KeyError:
                counts, times = self._new(key_id, model, route, status)
            counts[0] += 1
            counts[1] += prompt
            counts[2] += cached
            counts[3] += generated
            if waited is not None:
                times.wait(waited, loading)
            elif sent:
                times.at_once += 1
            else:
                times.wait(seconds, loading)  # it gave up, or was refused, before its turn
            if status != _OK:
                continue
            into = times.total
            into[bucket(waits, seconds)] += 1
            into[-1] += seconds
            if began is not None and streamed:
                into = times.first_token
                into[bucket(waits, began)] += 1
                into[-1] += began
                if generated < 2 or seconds <= began:
                    continue
                gap = (seconds - began) / (generated - 1)
            elif speed:
                gap = 1.0 / speed
            else:
                continue
            into = times.gap
            into[bucket(gaps, gap)] += 1
            into[-1] += gap
        self._fresh.clear()

    def more(self, key_id: str, model: str, tokens: int) -> None:
        """Count tokens that were written for a request when it had been counted already."""
        of = (key_id, model)
        if of not in self._late and len(self._late) >= _MOST:
            of = (OTHER, OTHER)
        self._late[of] = self._late.get(of, 0) + tokens

    def _new(self, key_id: str, model: str, route: str, status: int) -> tuple[list[int], _Times]:
        """Return new counters, or those that there are for want of new ones."""
        route = route.partition("?")[0]
        if route not in ROUTES:
            route = OTHER
        key_id, model = self._label(key_id, model)
        times = self._times.get(model)
        if times is None:
            times = self._times[model] = _Times()
        counts = self._requests.setdefault((key_id, model, route, status), [0, 0, 0, 0])
        return counts, times

    def _label(self, key_id: str, model: str) -> tuple[str, str]:
        """Return the names under which a request counts."""
        if len(self._requests) >= _MOST and self._monotonic() - self._pruned >= _PRUNE_EVERY:
            self._pruned = self._monotonic()
            self._prune()
        return (key_id, model) if len(self._requests) < _MOST else (OTHER, OTHER)

    def _prune(self) -> None:
        """Drop what is gone: its series end, as if it had never come back after a restart."""
        for of in [of for of in self._requests if self.gone(of[1], of[0])]:
            del self._requests[of]
        kept = {(key_id, model) for key_id, model, _, _ in self._requests}
        self._late = {of: tokens for of, tokens in self._late.items() if of in kept}
        models = {model for _, model in kept} | {OTHER}
        self._times = {name: times for name, times in self._times.items() if name in models}

    # --- looking ---------------------------------------------------------------------------

    def requests(self) -> Iterator[Requests]:
        """Yield every kind of requests that there was."""
        self._count()
        for (key_id, model, route, status), counts in self._requests.items():
            yield Requests(model, key_id, route, status, *counts)

    @property
    def late_tokens(self) -> dict[tuple[str, str], int]:
        """The tokens of :meth:`more`, by key id and model."""
        return self._late

    def times(self) -> Iterator[tuple[str, ModelTimes]]:
        """Yield the times of each model's requests."""
        self._count()
        for model, times in self._times.items():
            yield model, times.taken()
