"""Remembers on which machines models have run out of memory: what they need there is more than was
known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from gateway.backends.placement import HERE, Demand
from gateway.models.local_model import LocalModel

#: The factor by which a need is raised each time, and how often.
_MORE: Final = 1.25
_MOST: Final = 3
#: Seconds for which that is remembered: another program may have had the memory.
_REMEMBERED: Final = 3600.0


@dataclass(frozen=True, slots=True)
class _Note:
    """How often it was so, and when last; for which entry of models.json."""

    times: int
    since: float
    identity: tuple[object, ...]


class RanOut:
    """The machines where loads of models have ended for want of memory. ``now``: seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._notes: dict[tuple[str, str], _Note] = {}

    def note(self, spec: LocalModel, machines: Iterable[str]) -> bool:
        """Note that ``spec`` ran out of memory on ``machines``; return whether that is news."""
        known = self.on(spec)
        news = False
        for machine in machines:
            before = known.get(machine, 0)
            news = news or not before
            note = _Note(min(before + 1, _MOST), self._now(), spec.process_identity())
            self._notes[spec.name, machine] = note
        return news

    def forget(self, spec: LocalModel, machines: Iterable[str] | None = None) -> None:
        """Forget that, since it was loaded there; ``None``: it may be tried anywhere again."""
        there = set(self.on(spec) if machines is None else machines)
        for machine in there:
            self._notes.pop((spec.name, machine), None)

    def on(self, spec: LocalModel) -> dict[str, int]:
        """Return where ``spec``, as it is now, has run out of memory, and how often."""
        since, identity = self._now() - _REMEMBERED, spec.process_identity()
        return {
            machine: note.times
            for (name, machine), note in self._notes.items()
            if name == spec.name and note.identity == identity and note.since > since
        }

    def raised(self, spec: LocalModel, demand: Demand) -> Demand:
        """Return ``demand`` with more on these machines, which are to be tried last."""
        elsewhere = dict(demand.elsewhere)
        for machine, times in self.on(spec).items():
            if machine == HERE:
                demand = _more(demand, times)
            elif machine in elsewhere:
                elsewhere[machine] = _more(elsewhere[machine], times)
        return replace(demand, elsewhere=elsewhere)


def _more(demand: Demand, times: int) -> Demand:
    return replace(demand, size=int(demand.size * _MORE**times), ran_out=True)
