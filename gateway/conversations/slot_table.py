"""The slots of one process, and which of them a decision has to look at."""

from __future__ import annotations

from gateway.conversations.going_on import Bounds
from gateway.conversations.slot import Slot


class SlotTable:
    """So many slots.

    ``all``: by number. ``to_look_at``: those that have been used since the process began, and one
    of the others, which are all alike: a process may have 256 slots, of which few are ever used.
    ``bounds``: of each of these what begins with all that is in it, or will be.
    """

    def __init__(self, count: int) -> None:
        self.to_look_at: list[Slot] = []
        self.bounds = Bounds(self.to_look_at)
        self._unused = [
            Slot(number, self._first_used, self.bounds) for number in reversed(range(count))
        ]
        self.all = self._unused[::-1]
        if count > 1:
            for slot in self.all:
                slot.named = slot.number
        self.to_look_at += self._unused[-1:]

    def _first_used(self, slot: Slot) -> None:
        """``slot`` is used for the first time."""
        self._unused.remove(slot)  # at its end, as a rule
        if slot not in self.to_look_at:  # it was asked for by its number
            self.to_look_at.insert(len(self.to_look_at) - 1, slot)
        elif self._unused:
            self.to_look_at.append(self._unused[-1])
        self.bounds.changed()

    def ready_with(self, sent: bytes, owner: str) -> Slot | None:
        """Return a slot that is ready for ``owner``, and has just what is ``sent`` in it, up to the
        end of its messages: then no other has more of that.

        Many clients may ask the same at once (a probe, a batch with one prompt); :attr:`bounds`
        tell only one of the slots that have it, which may be busy with it.
        """
        for slot in self.bounds.all_of(sent):
            if (said := slot.ready) is None or said.owner != owner:
                continue
            bound, end = slot.bound, said.recognised.end
            if len(sent) == len(bound) + len(end) and sent.startswith(bound) and sent.endswith(end):
                return slot
        return None
