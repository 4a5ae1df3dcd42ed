"""Tells, during a decision, which models fit beside each other, and on which devices. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gateway.backends.decision import Act, Action, ModelView, SchedulingLimits
from gateway.backends.placement import Memory, Placement, place, taken_by


class Room:
    """The room for models: what is resident now, and what will be after the actions
    chosen so far.
    """

    def __init__(
        self, models: Sequence[ModelView], limits: SchedulingLimits, memory: Memory
    ) -> None:
        self._limits = limits
        self._memory = memory
        here = [m for m in models if m.resident and not m.remote]
        self._sizes = {m.name: m.demand.size for m in here}
        self._taken = {m.name: m.on for m in here}
        self._staying = {m.name: m.on for m in here if m.pinned and not m.stopping and not m.unload}
        self.leaving = {m.name for m in models if m.resident and m.stopping}
        self.draining: set[str] = set()  # by a choice made for an older newcomer

    def ever_fits(self, model: ModelView) -> bool:
        """Return whether it would fit if everything had gone that can go, other programs too."""
        return self._place(model, self._staying, ever=True) is not None

    def could_fit(self, model: ModelView) -> bool:
        """Return whether it would fit if every model had gone that can go, beside
        other programs.
        """
        return self._place(model, self._staying, hopeful=True) is not None

    def place(self, model: ModelView) -> Placement | None:
        """Return where ``model`` could start this moment."""
        return self._place(model, self._taken)

    def place_scantily(self, model: ModelView) -> Placement | None:
        """Return where ``model`` could start this moment with no more than it can do with."""
        demand = model.demand
        if demand.scant is None:
            return None
        least = min(demand.scant, demand.least)
        return self._place(replace(model, demand=replace(demand, least=least)), self._taken)

    def will_fit(self, model: ModelView, gone: Sequence[ModelView]) -> bool:
        """Return whether it will fit when those that are leaving, and ``gone``, have gone."""
        return self.place_without(model, gone) is not None

    def place_without(self, model: ModelView, gone: Sequence[ModelView]) -> Placement | None:
        """Return where it will be then."""
        away = self.leaving | {m.name for m in gone}
        return self._place(model, {n: on for n, on in self._taken.items() if n not in away})

    def _place(
        self,
        model: ModelView,
        taken: Mapping[str, Placement],
        *,
        ever: bool = False,
        hopeful: bool = False,
    ) -> Placement | None:
        limits = self._limits
        if taken:  # alone, anything may try: what it needs is only an estimate
            if model.alone and not taken.keys() <= self._staying.keys():
                return None
            if limits.max_loaded is not None and len(taken) + 1 > limits.max_loaded:
                return None
            together = sum(self._sizes[name] for name in taken) + model.demand.size
            if limits.budget is not None and together > limits.budget:
                return None
        return place(
            model.demand,
            self._memory,
            taken_by(taken.values()),
            ever=ever,
            hopeful=hopeful,
            last=taken.keys() <= self._staying.keys(),
        )

    def reserve(self, model: ModelView, on: Placement) -> None:
        """Keep a place for it, against those that came later."""
        self._taken.setdefault(model.name, on)
        self._sizes.setdefault(model.name, model.demand.size)

    def leave(self, model: ModelView, actions: list[Action], room_for: str | None = None) -> None:
        """Stop it. Its place counts as taken until the process is gone.

        ``room_for``: the model that needs that place.
        """
        if model.name not in self.leaving:
            self.leaving.add(model.name)
            actions.append(Action(Act.STOP, model.name, room_for=room_for))
