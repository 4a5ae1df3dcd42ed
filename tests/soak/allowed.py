"""Which outcomes a request may have, by the faults that were in force while it ran."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

#: The outcome of a request that got what it asked for.
RIGHT: Final = "right"
#: The connection broke before a byte of an answer came.
NOTHING: Final = "no answer"
#: The same on a connection that had been used: what its client sends again (RFC 9112, 9.3.1).
CLOSED: Final = "closed before it was used again"
#: An answer that stopped in its middle, and could not say why.
CUT: Final = "cut off"
#: No connection was made.
REFUSED: Final = "no connection"

#: What is allowed besides :data:`RIGHT`, by fault. Everything else is a breach, and so is a wrong
#: text (another request's, another personality's) whatever happens.
ALLOWED: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        # Clients that leave are nobody else's concern.
        "hang-up": frozenset(),
        # What hasn't been answered yet is sent again; a stream under way says why it ends.
        "child killed": frozenset({"cut off: backend_died"}),
        # A gateway that is to restart waits for it for `shutdown_timeout`, and no longer.
        "child frozen": frozenset(
            {"cut off: backend_died", "cut off: shutting_down", "503 shutting_down"}
        ),
        # A swap is a wait.
        "swap": frozenset(),
        "reload": frozenset(),
        "certificate": frozenset(),
        # Records wait in memory. Whoever changes keys is told: see the driver.
        "disk full": frozenset(),
        "store locked": frozenset(),
        "key revoked": frozenset(),
        # Everybody who is connected is answered; an idle connection may be closed just then.
        "restart": frozenset({CLOSED}),
        # Nobody can say anything any more.
        "gateway killed": frozenset({CLOSED, NOTHING, CUT, REFUSED}),
    }
)


@dataclass(eq=False, slots=True)
class Entry:
    """A fault in force at a door."""

    door: str
    fault: str
    begun: float
    ended: float = float("inf")


class Ledger:
    """The faults in force, and those that were a while ago."""

    #: Seconds for which an ended fault is remembered: no request takes as long.
    _REMEMBERED: Final = 400.0

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        #: How often each fault was brought about.
        self.count: Counter[str] = Counter()

    @contextlib.contextmanager
    def in_force(self, door: str, fault: str, *, after: float = 0.0) -> Iterator[None]:
        """Allow what ``fault`` allows at ``door``, until ``after`` seconds behind the block."""
        entry = Entry(door, fault, time.monotonic())
        self._entries.append(entry)
        self.count[fault] += 1
        try:
            yield
        finally:
            entry.ended = time.monotonic() + after
            self._forget()

    def faults(self, door: str, since: float, until: float) -> set[str]:
        """The faults in force at some time between the two."""
        return {
            entry.fault
            for entry in self._entries
            if entry.door == door and entry.begun <= until and entry.ended >= since
        }

    def _forget(self) -> None:
        old = time.monotonic() - self._REMEMBERED
        while self._entries and self._entries[0].ended < old:
            self._entries.popleft()


def allowed(outcome: str, faults: set[str]) -> bool:
    """Whether a request may have ended so while ``faults`` were in force."""
    return outcome == RIGHT or any(outcome in ALLOWED[fault] for fault in faults)
