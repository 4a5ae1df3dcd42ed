"""Tells, during a decision, which models fit beside each other on one machine. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import NamedTuple

from gateway.backends.decision import ModelView
from gateway.backends.placement import HERE, Demand, Memory, Placement, left_over, place, taken_by
from gateway.backends.ram import RAM


class Spot(NamedTuple):
    """A place for a model: the devices of one machine, and the bytes that it leaves of them.

    Negative where it may only try, since no more can be had there.
    """

    machine: str
    on: Placement
    left: int


class MachineRoom:
    """The room for models on the machine ``name``: what is there now, and what will be."""

    def __init__(
        self,
        name: str,
        memory: Memory,
        budget: int | None = None,
        models: Sequence[ModelView] = (),
    ) -> None:
        """``models``: those that are on it, with all that they have."""
        self.name = name
        self.memory = memory
        self._budget = budget
        #: What is on it, by model, and of that what nobody unloads.
        self.taken = {m.name: m.on for m in models}
        self.staying = {m.name: m.on for m in models if m.stays}
        self._sizes = {m.name: m.demand.size for m in models}

    def add(self, model: str, on: Placement, size: int, *, stays: bool = False) -> None:
        """Count a model, or one more copy of it. ``size``: its bytes of the budget."""
        self.taken[model] = self.taken.get(model, ()) + on
        self._sizes[model] = self._sizes.get(model, 0) + size
        if stays:
            self.staying[model] = self.taken[model]

    @property
    def crowd(self) -> tuple[int, int]:
        """How many models are on it, and of two that have as many, less for more free memory."""
        sizes = taken_by(self.taken.values())
        return len(self.taken), sum(sizes.get(c.name, 0) - c.left for c in self.memory.cards)

    def free(self, away: Set[str] | None) -> int:
        """Return the bytes of its devices that are free beside models, without those ``away``."""
        sizes = taken_by(self._beside(away).values())
        return sum(max(c.left - sizes.get(c.name, 0), 0) for c in self.memory.cards)

    def place(
        self,
        model: ModelView,
        demand: Demand,
        away: Set[str] | None,
        *,
        memory: Memory | None = None,
        ever: bool = False,
        hopeful: bool = False,
    ) -> Placement | None:
        """Return where ``model`` would be if those ``away`` had gone; ``None``: there is no room.

        ``away=None``: all that can go. ``memory``: of the devices where it may be. ``ever`` and
        ``hopeful``: see :func:`place`.
        """
        taken = self._beside(away)
        last = away is None or taken.keys() <= self.staying.keys()
        if taken:  # alone, anything may try: what it needs is only an estimate
            if model.alone and not last:
                return None
            if self._budget is not None and self._together(taken, demand) > self._budget:
                return None
        sizes = taken_by(taken.values())
        memory = memory or self.memory
        on = place(demand, memory, sizes, ever=ever, hopeful=hopeful, last=last)
        return None if on is None else self._placed(on, 0 if memory.cards else demand.size)

    def _placed(self, on: Placement, size: int) -> Placement:
        """Return ``on`` so that it says which machine it means; of no device, it has ``size``."""
        return on if on or self.name == HERE else ((f"{self.name}/{RAM}", size),)

    def spot(
        self,
        model: ModelView,
        demand: Demand,
        away: Set[str] | None,
        *,
        without: Set[str] = frozenset(),
        hopeful: bool = False,
    ) -> Spot | None:
        """Return the same, to be compared with other machines.

        ``without``: on other devices than these, which models.json may forbid.
        """
        memory = self.memory
        if without:
            cards = tuple(card for card in memory.cards if card.name not in without)
            if not cards or demand.devices or demand.shares:
                return None
            memory = replace(memory, cards=cards)
        on = self.place(model, demand, away, memory=memory, hopeful=hopeful)
        if on is None:
            return None
        taken = self._beside(away)
        left = left_over(on, memory, taken_by(taken.values()), hopeful=hopeful)
        if self._budget is not None:
            left = min(left, self._budget - self._together(taken, demand))
        return Spot(self.name, on, left)

    def _beside(self, away: Set[str] | None) -> Mapping[str, Placement]:
        if away is None:
            return self.staying
        return {n: on for n, on in self.taken.items() if n not in away} if away else self.taken

    def _together(self, taken: Mapping[str, Placement], demand: Demand) -> int:
        return sum(self._sizes[name] for name in taken) + demand.size
