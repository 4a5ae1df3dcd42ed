"""The slots of one process, and which of them a decision has to look at."""

from __future__ import annotations

from gateway.conversations.slot import Slot


class SlotTable:
    """So many slots.

    ``all``: by number. ``to_look_at``: those that have been used since the process began, and one
    of the others, which are all alike: a process may have 256 slots, of which few are ever used.
    """

    def __init__(self, count: int) -> None:
        self._unused = [Slot(number, self._first_used) for number in reversed(range(count))]
        self.all = self._unused[::-1]
        self.to_look_at: list[Slot] = self._unused[-1:]

    def _first_used(self, slot: Slot) -> None:
        """``slot`` is used for the first time."""
        self._unused.remove(slot)  # at its end, as a rule
        if slot not in self.to_look_at:  # it was asked for by its number
            self.to_look_at.insert(-1, slot)
        elif self._unused:
            self.to_look_at.append(self._unused[-1])
