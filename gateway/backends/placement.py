"""Places a model on the devices of one machine, by its needs and their free memory. Pure.

A model goes to one GPU, to that where it fits and leaves the least; only one that is too big for
what any of them has spans all, as llama.cpp spreads it: by what each has left. Where models.json
chooses (``--device``, ``--tensor-split``), it is counted as chosen.

Other machines are nodes, each with a name. A device of one is named ``NODE/DEVICE``; a name without
a slash is one of the gateway's own machine. A placement spans machines only for a model that may,
and that none of them could hold alone; the device that comes first is of the one that leads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

#: ``((device, bytes), ...)``
Placement = tuple[tuple[str, int], ...]

#: The name of the gateway's own machine, which no node has.
HERE: Final = "here"

#: The factor for a model that spans GPUs: some of each stays unused, as layers cannot be divided.
_SPANNING = 1.05
#: The share of the memory for models that must be free for a model that exceeds all of it.
_MOST = 0.75


class Look(Enum):
    """The age of the last look at the memory."""

    FRESH = auto()
    STALE = auto()  # nothing is decided by it
    UNDER_WAY = auto()


@dataclass(frozen=True, slots=True)
class Card:
    """A device that models live on: a GPU, or RAM. Bytes.

    ``size`` is for all models together when no other program uses the device, ``left`` is what of
    that others leave now, ``hope`` what they may turn out to leave, when models that are loading
    have taken what they need.
    """

    name: str
    size: int
    left: int
    hope: int | None = None  # None: ``left``


@dataclass(frozen=True, slots=True)
class Memory:
    """All devices, as they were at ``seen`` (seconds, of the monotonic clock).

    Without cards nothing is known of any, and models go anywhere. ``nodes`` are other machines that
    take models now, by name; they tell their memory by themselves, so ``look`` and ``seen`` are of
    this one.
    """

    cards: tuple[Card, ...] = ()
    ram: Card | None = None  # beside GPUs: for layers that are not offloaded
    look: Look = Look.FRESH
    seen: float = math.inf
    nodes: Mapping[str, Memory] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Demand:
    """The memory that one model needs. Bytes.

    ``least``: what it takes for sure; with so much a load is worth a try where no more can be had.
    ``devices``: those that models.json chooses, with ``shares`` in the proportions of
    ``--tensor-split``. ``here``: whether it may run on this machine. ``elsewhere``: what it needs
    on each node that can take it. ``copied``: its files aren't there yet. ``ran_out``: it has been
    tried there, and memory ran out. ``helpers``: the nodes that can lend devices to this one, of
    which it may use ``most_helpers``.
    """

    size: int = 0
    least: int = 0
    ram: int = 0  # in RAM, beside what is on GPUs
    least_ram: int | None = None  # of that; None: all
    scant: int | None = None  # of size: what does, if slowly, where waiting for more was in vain
    devices: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    here: bool = True
    elsewhere: Mapping[str, Demand] = field(default_factory=dict)
    copied: bool = False
    ran_out: bool = False
    helpers: tuple[str, ...] = ()
    most_helpers: int = 0


@dataclass(frozen=True, slots=True)
class Resident:
    """A resident model: its process group, and where it was placed."""

    group: int
    on: Placement
    settled: bool  # has taken what it needs


def place(
    demand: Demand,
    memory: Memory,
    taken: Mapping[str, int],
    *,
    ever: bool = False,
    hopeful: bool = False,
    last: bool = False,
) -> Placement | None:
    """Return where a model goes beside ``taken`` (bytes by device); ``None``: there is no room.

    Where no other model is, or none that could go (``last``), what it needs is not taken at its
    word: it is an estimate, or a bit less will do. What is too big for all there is may try, which
    llama.cpp fits in as far as it goes, unless other programs have taken much of it. ``ever``: as
    if there were no other programs. ``hopeful``: with what may turn out to be left.
    """
    cards: Sequence[Card] = memory.cards
    if demand.devices:
        cards = [card for card in cards if card.name in demand.devices]
    rooms = _Rooms(taken, ever=ever, hopeful=hopeful, last=last)
    in_ram: Placement = ()
    if demand.ram and memory.ram is not None:
        least = demand.ram if demand.least_ram is None else demand.least_ram
        if not rooms.enough(demand.ram, least, [memory.ram]):
            return None
        in_ram = ((memory.ram.name, demand.ram),)
    if not cards or demand.size <= 0:
        return in_ram
    if demand.shares:
        parts = _by_shares(demand, cards, rooms)
    elif demand.devices:
        parts = _spread(demand, cards, rooms)
    else:
        parts = _on_one_or_all(demand, cards, rooms)
    return None if parts is None else (*in_ram, *parts.items())


def taken_by(placements: Iterable[Placement]) -> dict[str, int]:
    """Return bytes by device of several models together."""
    taken: dict[str, int] = {}
    for placement in placements:
        for name, size in placement:
            taken[name] = taken.get(name, 0) + size
    return taken


def left_over(on: Placement, memory: Memory, taken: Mapping[str, int], *, hopeful: bool) -> int:
    """Return the bytes that ``on`` leaves of its GPUs beside ``taken``, or of RAM without any.

    Negative: those that it lacks, of RAM beside GPUs too.
    """
    rooms = _Rooms(taken, ever=False, hopeful=hopeful, last=False)
    cards = {card.name: card for card in memory.cards}
    left = lacking = 0
    for name, size in on:
        if (card := cards.get(name, memory.ram)) is not None:
            rest = rooms.of(card) - size
            lacking += min(rest, 0)
            left += rest if name in cards else 0
    return lacking or left


def machine_of(device: str) -> str:
    """Return the name of the machine that has ``device``."""
    node, slash, _ = device.partition("/")
    return node if slash else HERE


def by_machine(on: Placement) -> dict[str, Placement]:
    """Return the parts of ``on`` that are on each machine, those of several copies of a model."""
    parts: dict[str, Placement] = {}
    for device in on:
        machine = machine_of(device[0])
        parts[machine] = (*parts.get(machine, ()), device)
    return parts or {HERE: ()}


class _Rooms:
    """The room that devices have left beside what models have taken."""

    def __init__(self, taken: Mapping[str, int], *, ever: bool, hopeful: bool, last: bool) -> None:
        self._taken = taken
        self._ever = ever
        self._hopeful = hopeful
        self._last = last

    def of(self, card: Card) -> int:
        left = card.left
        if self._ever:
            left = card.size
        elif self._hopeful and card.hope is not None:
            left = card.hope
        left -= self._taken.get(card.name, 0)
        return left if left > 0 else 0

    def final(self, cards: Sequence[Card]) -> bool:
        """Return whether there is no model on ``cards``, or none that could go."""
        return self._last or not any(self._taken.get(card.name) for card in cards)

    def enough(self, size: int, least: int, cards: Sequence[Card]) -> bool:
        room = sum(map(self.of, cards))
        if room >= size:
            return True
        if not self.final(cards):
            return False
        whole = sum(card.size for card in cards)
        empty = not any(self._taken.get(card.name) for card in cards)
        return room >= least or (empty and least > whole > 0 and room >= _MOST * whole)


def _on_one_or_all(demand: Demand, cards: Sequence[Card], rooms: _Rooms) -> dict[str, int] | None:
    size, least = demand.size, demand.least
    if len(cards) > 1 and size > max([card.size for card in cards]):
        return _spread(demand, cards, rooms)
    if fitting := [(room, n) for n, c in enumerate(cards) if (room := rooms.of(c)) >= size]:
        return {cards[min(fitting)[1]].name: size}
    if len(cards) > 1 and rooms.final(cards) and sum(map(rooms.of, cards)) >= _SPANNING * size:
        return _spread(demand, cards, rooms)  # rather than be tied to one that may not do
    big = [card for card in cards if len(cards) == 1 or card.size >= least]
    trying = [card for card in big if rooms.enough(size, least, [card])]
    return {max(trying, key=rooms.of).name: size} if trying else None


def _spread(demand: Demand, cards: Sequence[Card], rooms: _Rooms) -> dict[str, int] | None:
    size = demand.size if len(cards) == 1 else int(demand.size * _SPANNING)
    room = sum(map(rooms.of, cards))
    if not room or not rooms.enough(size, demand.least, cards):
        return None
    return {c.name: size * rooms.of(c) // room for c in cards if rooms.of(c)}


def _by_shares(demand: Demand, cards: Sequence[Card], rooms: _Rooms) -> dict[str, int] | None:
    order = demand.devices or tuple(card.name for card in cards)
    shares = dict(zip(order, demand.shares, strict=False))
    whole = sum(shares.get(card.name, 0.0) for card in cards) or 1.0
    parts = {}
    for card in cards:
        if share := shares.get(card.name, 0.0) / whole:
            parts[card.name] = int(demand.size * share)
            if not rooms.enough(parts[card.name], int(demand.least * share), [card]):
                return None
    return parts
