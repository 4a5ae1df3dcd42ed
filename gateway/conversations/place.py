"""In which slot a request goes, and what has to be done there first. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from gateway.conversations.chain import Chain

#: What it costs to read a conversation back, as a part of what it costs to compute it.
_RESTORING: Final = 0.05
#: What it costs to throw one out that is to go on, and then has to be read back, or computed.
LOSING_SAVED: Final = _RESTORING
LOSING_ALL: Final = 1.0
#: Seconds in which it gets half as likely that a conversation goes on.
_HALF_LIFE: Final = 600.0
#: The part of a prompt that has to be in a slot for llama-server to choose it for that: twice its
#: ``--slot-prompt-similarity``, since tokens aren't all of one length.
_ALIKE: Final = 0.2


class SlotView(NamedTuple):
    """A slot as a decision sees it.

    ``chain``: what is in it, or will be when it is free again. ``used``: when it was last used, in
    seconds, by the clock that tells what ``now`` is.
    """

    number: int
    chain: Chain
    free: bool = True
    used: float = 0.0


class Placing(NamedTuple):
    """``restore``: whether what is saved is to be read into the slot.

    ``loses``: characters of what is in it that the request doesn't continue.
    """

    slot: int
    restore: bool
    loses: int


def place(
    chain: Chain,
    slots: Sequence[SlotView],
    saved: int,
    least: int = 0,
    now: float = 0.0,
    losing: float = LOSING_SAVED,
) -> Placing | None:
    """Return where a request with ``chain`` goes, or ``None`` if no slot is free.

    ``saved``: so many of its links are saved, at most; they are read back for a gain of ``least``
    characters or more. ``losing``: what it costs to lose what is in a slot, as a part of what it
    costs to compute it. Among slots that are equally good an empty one comes first, then the one
    that has not been used for longest.
    """
    links = chain.links
    if len(slots) == 1 and not links:  # the only slot, whatever is in it
        number, held, free, _ = slots[0]
        return Placing(number, False, held.size()) if free else None
    first = links[0] if links else None
    empty: SlotView | None = None
    alike: list[SlotView] = []
    others: list[SlotView] = []
    for slot in slots:
        _, held, free, used = slot
        if not free:
            continue
        if not held.links:
            if empty is None or used < empty.used:
                empty = slot
        elif held.links[0] == first:
            alike.append(slot)
        else:
            others.append(slot)
    if empty is not None:  # better than all that would lose something, and have nothing in common
        others = [empty]
    read = _read_back(chain, saved) if saved else 0.0
    whole = _goes_on_with(chain, alike) if alike else 0
    if whole and read <= chain.size(min(whole + 1, len(links))):  # its answer is there as well
        alike, others, read = _with_link(chain, whole, alike), [], 0.0
    worth = max(1.0, least * (1 - _RESTORING))
    best: tuple[tuple[float, bool, float], Placing] | None = None
    for slot in (*alike, *others):
        live, loses = _common(chain, slot)
        for restore in (False, True) if read - live >= worth else (False,):
            score = _score(read if restore else live, loses, now - slot.used, losing)
            order = score, not slot.chain.links, -slot.used
            if best is None or order > best[0]:
                best = order, Placing(slot.number, restore, loses)
    return best[1] if best is not None else None


def spared_by_waiting(
    chain: Chain,
    slots: Sequence[SlotView],
    saved: int,
    placing: Placing,
    now: float = 0.0,
    losing: float = LOSING_SAVED,
) -> int:
    """Return how much of ``chain`` need not be computed in the best slot at work.

    In characters, beyond what ``placing`` spares; 0 where no slot at work is better.
    """
    (taken,) = (slot for slot in slots if slot.number == placing.slot)
    known = 0 if placing.restore else chain.common(taken.chain.links)
    better = [slot for slot in _with_link(chain, known + 1, slots) if not slot.free]
    if not better:
        return 0
    live, loses = _common(chain, taken)
    gain = _read_back(chain, saved) if placing.restore else live
    at_once = _score(gain, loses, now - taken.used, losing)
    spared = 0.0
    for slot in better:
        live, loses = _common(chain, slot)
        later = _score(live, loses, 0.0, losing)
        spared = max(spared, min(live - gain, later - at_once))
    return int(spared)


def is_most_alike(chain: Chain, held: Chain, others: Sequence[Chain]) -> bool:
    """Return whether llama-server itself puts a request with ``chain`` where ``held`` is, rather
    than where ``others`` are: see :mod:`gateway.conversations.chosen`.
    """
    live = chain.common(held.links)
    if chain.size(live) < _ALIKE * chain.size():
        return False
    return all(chain.common(other.links) < live for other in others)


def _goes_on_with(chain: Chain, slots: Sequence[SlotView]) -> int:
    """Return how many links a slot has of which all are the beginning of ``chain``; at most.

    It loses nothing, so it is better than all slots that have less in common.
    """
    links, most = chain.links, 0
    for slot in slots:
        held = slot.chain.links
        count = len(held)
        if most < count <= len(links) and held[-1] == links[count - 1]:
            most = count
    return most


def _with_link(chain: Chain, count: int, slots: Sequence[SlotView]) -> list[SlotView]:
    """Return the slots that have the first ``count`` links of ``chain`` in them."""
    if count > len(chain.links):
        return []
    link, last = chain.links[count - 1], count - 1
    return [
        slot for slot in slots if len(slot.chain.links) > last and slot.chain.links[last] == link
    ]


def _common(chain: Chain, slot: SlotView) -> tuple[int, int]:
    """Return how much of ``chain`` is in ``slot``, and how much else."""
    held = slot.chain
    if not held.links:
        return 0, 0
    live = chain.size(chain.common(held.links))
    return live, held.size() - live


def _read_back(chain: Chain, saved: int) -> float:
    """Return what it is worth to read back what is saved: in characters."""
    return chain.size(saved) * (1 - _RESTORING)


def _score(gain: float, loses: int, age: float, losing: float) -> float:
    if not loses:
        return gain
    return gain - losing * loses * math.pow(0.5, max(0.0, age) / _HALF_LIFE)
