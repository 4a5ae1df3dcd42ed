"""What came of everything: answers, how long they took, and what should not have been."""

from __future__ import annotations

import statistics
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Final

from tests.soak.allowed import RIGHT, Ledger, allowed
from tests.soak.asking import Asked, outcome_of
from tests.soak.client import Answer
from tests.soak.measures import quantile

#: Details kept of each kind of breach.
_DETAILS: Final = 3


class Tally:
    """Counts answers and breaches."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.outcomes: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        #: Requests to a model that got an answer, or the beginning of one, by door.
        self.counted: Counter[str] = Counter()
        self.breaches: Counter[str] = Counter()
        self._details: dict[str, list[str]] = {}
        #: Lines of warnings and errors in the logs.
        self.told: Counter[str] = Counter()
        self._quiet: dict[str, array[float]] = {}
        self._disturbed = array("d")

    @property
    def requests(self) -> int:
        """How many were answered, or should have been."""
        return self.outcomes.total()

    def breach(self, what: str, detail: str = "") -> None:
        """Note what should not have been."""
        self.breaches[what] += 1
        details = self._details.setdefault(what, [])
        if len(details) < _DETAILS:
            details.append(detail[:4000])
            print(f"BREACH {what}: {detail[:300]}", flush=True)

    def note(self, door: str, asked: Asked, answer: Answer, *, reused: bool = False) -> str:
        """Note what came of a request, and return it in the words of what is allowed."""
        outcome = outcome_of(asked, answer, reused=reused)
        faults = self._ledger.faults(door, answer.asked, answer.ended)
        self.outcomes[outcome] += 1
        self.kinds[asked.kind] += 1
        if asked.counted and answer.received:
            self.counted[door] += 1
        if not allowed(outcome, faults):
            took = f"{answer.ended - answer.asked:.3f} s"
            detail = f"{asked.kind} after {took} ({', '.join(sorted(faults)) or 'no fault'})"
            self.breach(f"{door}: {outcome}", f"{detail}: {answer.text[:1500]!r}")
        elif outcome == RIGHT:
            seconds = answer.ended - answer.asked
            if faults - {"hang-up", "key revoked"}:
                self._disturbed.append(seconds)
            else:
                self._quiet.setdefault(asked.kind, array("d")).append(seconds)
        return outcome

    def lines(self) -> list[str]:
        """The report of all that."""
        found = [f"{self.requests} requests: {_counts(self.kinds)}"]
        found.append(f"outcomes: {_counts(self.outcomes)}")
        for kind, seconds in sorted(self._quiet.items()):
            found.append(f"{kind}, while nothing was wrong: {_times(seconds)}")
        found.append(f"all kinds, during faults: {_times(self._disturbed)}")
        found += [f"logged {count:6} x {line}" for line, count in self.told.most_common(25)]
        for what, count in self.breaches.items():
            found.append(f"BREACH {what} ({count} times)")
            found += [f"    {detail}" for detail in self._details[what]]
        return found


def _counts(counted: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counted.most_common())


def _times(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    if not ordered:
        return "none"
    p50, p99 = (quantile(ordered, share) * 1000 for share in (0.5, 0.99))
    mean = statistics.fmean(ordered) * 1000
    return (
        f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, mean {mean:.1f} ms, "
        f"longest {ordered[-1]:.2f} s ({len(ordered)})"
    )
