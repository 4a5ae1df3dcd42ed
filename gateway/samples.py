"""Memory and load over time: the last hour in fine steps, the last week in coarse ones.

They are kept in memory, bounded, and don't outlive the gateway.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

#: Seconds between two fine samples, and how many of them are kept.
FINE: Final = 10
_HOUR: Final = 3600
#: The same for the coarse samples that they are merged into.
COARSE: Final = 300
WEEK: Final = 7 * 24 * _HOUR


class Sample(NamedTuple):
    """A sample of one moment (seconds since 1970), or of the time before it. Sizes in bytes.

    ``used``: what is used of each device, by its name; one that wasn't looked at is missing.
    ``gateway`` and ``models``: what the gateway itself uses, and all its llama-servers together.
    ``prompt`` and ``completion``: tokens per second that were read and written.
    """

    at: float
    used: tuple[tuple[str, int], ...] = ()
    gateway: int | None = None
    models: int | None = None
    running: int = 0
    waiting: int = 0
    prompt: float = 0.0
    completion: float = 0.0


class Samples:
    """A ring of samples: an hour, every :data:`FINE` seconds, and a week, every :data:`COARSE`."""

    def __init__(self) -> None:
        self._fine: deque[Sample] = deque(maxlen=_HOUR // FINE)
        self._coarse: deque[Sample] = deque(maxlen=WEEK // COARSE)
        self._gathered: list[Sample] = []

    def add(self, sample: Sample) -> None:
        """Keep a sample. Later ones are dropped first: the clock may have been set back."""
        for kept in (self._fine, self._coarse, self._gathered):
            while kept and kept[-1].at >= sample.at:
                kept.pop()
        self._fine.append(sample)
        if self._gathered and self._gathered[0].at // COARSE != sample.at // COARSE:
            self._coarse.append(merged(self._gathered))
            self._gathered.clear()
        self._gathered.append(sample)

    @property
    def last(self) -> Sample | None:
        """The newest sample."""
        return self._fine[-1] if self._fine else None

    def since(self, at: float, now: float) -> tuple[int, list[Sample]]:
        """Return the samples since ``at``, the oldest first, and the seconds between two of
        them.
        """
        if now - at <= _HOUR:
            return FINE, [one for one in self._fine if one.at >= at]
        kept = [*self._coarse, merged(self._gathered)] if self._gathered else self._coarse
        return COARSE, [one for one in kept if one.at >= at]


def merged(samples: Sequence[Sample]) -> Sample:
    """Return one for all of them: the most that was used at a moment, and average tokens per
    second.

    For memory the peak is kept, which an average would hide.
    """
    names = dict.fromkeys(name for one in samples for name, _ in one.used)
    seen = [dict(one.used) for one in samples]
    return Sample(
        samples[-1].at,
        tuple((name, max(used[name] for used in seen if name in used)) for name in names),
        max((one.gateway for one in samples if one.gateway is not None), default=None),
        max((one.models for one in samples if one.models is not None), default=None),
        max(one.running for one in samples),
        max(one.waiting for one in samples),
        sum(one.prompt for one in samples) / len(samples),
        sum(one.completion for one in samples) / len(samples),
    )
