"""In which slot a request goes, and what has to be done there first. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from gateway.conversations.chain import Chain

#: What it costs to read a conversation back, as a part of what it costs to compute it.
_RESTORING: Final = 0.05
#: What it costs to throw one out that is to go on: it has to be read back then.
_LOSING: Final = _RESTORING
#: Seconds in which it gets half as likely that a conversation goes on.
_HALF_LIFE: Final = 600.0


class SlotView(NamedTuple):
    """A slot as a decision sees it.

    ``chain``: what is in it, or will be when it is free again. ``age``: seconds since its last use.
    """

    number: int
    chain: Chain
    free: bool = True
    age: float = 0.0


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
    read = _read_back(chain, saved)
    for slot in slots:
        if not slot.free:
            continue
        live, loses = _common(chain, slot)
        for restore in (False, True):
            if restore and read - live < max(1.0, least * (1 - _RESTORING)):
                continue
            score = _score(read if restore else live, loses, slot)
            order = score, not slot.chain.links, slot.age
            if best is None or order > best[0]:
                best = order, Placing(slot.number, restore, loses)
    return best[1] if best is not None else None


def spared_by_waiting(chain: Chain, slots: Sequence[SlotView], saved: int, placing: Placing) -> int:
    """Return how much of ``chain`` need not be computed in the best slot at work.

    In characters, beyond what ``placing`` spares; 0 where no slot at work is better.
    """
    (taken,) = (slot for slot in slots if slot.number == placing.slot)
    live, loses = _common(chain, taken)
    gain = _read_back(chain, saved) if placing.restore else live
    now = _score(gain, loses, taken)
    spared = 0.0
    for slot in slots:
        if not slot.free:
            live, loses = _common(chain, slot)
            spared = max(spared, min(live - gain, _score(live, loses, slot) - now))
    return int(spared)


def _common(chain: Chain, slot: SlotView) -> tuple[int, int]:
    """Return how much of ``chain`` is in ``slot``, and how much else."""
    live = chain.size(chain.common(slot.chain.links))
    return live, slot.chain.size() - live


def _read_back(chain: Chain, saved: int) -> float:
    """Return what it is worth to read back what is saved: in characters."""
    return chain.size(saved) * (1 - _RESTORING)


def _score(gain: float, loses: int, slot: SlotView) -> float:
    goes_on = math.pow(0.5, max(0.0, slot.age) / _HALF_LIFE)
    return gain - _LOSING * loses * goes_on
