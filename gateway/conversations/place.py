"""In which slot a request goes, and what has to be done there first. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from gateway.conversations.chain import Chain

#: What it costs to read a conversation back, as a part of what it costs to compute it.
_RESTORING: Final = 0.05
#: What it costs to throw one out: it has to be saved, or to be read back some day.
_LOSING: Final = 0.02


class SlotView(NamedTuple):
    """A slot as a decision sees it. ``chain``: what is in it."""

    number: int
    chain: Chain
    free: bool = True
    last_used: float = 0.0


class Placing(NamedTuple):
    """``restore``: whether what is saved is to be read into the slot.

    ``loses``: characters of what is in it that the request doesn't continue.
    """

    slot: int
    restore: bool
    loses: int


def place(chain: Chain, slots: Sequence[SlotView], saved: int, least: int = 0) -> Placing | None:
    """Return where a request with ``chain`` goes, or ``None`` if no slot is free.

    ``saved``: so many of its links are saved, at most; they are read back for a gain of ``least``
    characters or more. Among slots that are equally good an empty
    one comes first, then the one that has not been used for longest.
    """
    best: tuple[tuple[float, bool, float], Placing] | None = None
    restored = chain.size(saved) * (1 - _RESTORING)
    for slot in slots:
        if not slot.free:
            continue
        common = chain.common(slot.chain.links)
        live, held = chain.size(common), slot.chain.size()
        for restore, gain, loses in ((False, live, held - live), (True, restored, held)):
            if restore and restored - live <= least * (1 - _RESTORING):
                continue
            score = gain - _LOSING * loses
            order = (score, not held, -slot.last_used)
            if best is None or order > best[0]:
                best = order, Placing(slot.number, restore, loses)
    return best[1] if best is not None else None
