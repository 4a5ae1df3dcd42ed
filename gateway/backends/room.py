"""Tells, during a decision, which models fit beside each other, and on which devices. Pure.

A model goes to one machine; one whose entry allows it, and that none could hold, to several
(:mod:`gateway.backends.span`). Which, ``placement`` of the limits says: "pack" or "spread". Where
it could only try to fit, it goes if no other machine could hold it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

from gateway.backends.copies import key_of, keys_of, that_may_go
from gateway.backends.decision import ModelView, SchedulingLimits
from gateway.backends.machine_room import MachineRoom, Spot
from gateway.backends.placement import (
    HERE,
    Demand,
    Memory,
    Placement,
    by_machine,
    machine_of,
    taken_by,
)
from gateway.backends.span import SpanRoom, is_span, leading, members

_NONE: frozenset[str] = frozenset()


class Room:
    """The room for models: what is resident now, and what will be after the actions
    chosen so far.

    What is on a node that takes no models now, drained or lost, is in nobody's way.
    """

    def __init__(
        self,
        models: Sequence[ModelView],
        limits: SchedulingLimits,
        memory: Memory,
        leaving: set[str],
    ) -> None:
        """``leaving``: the models that are being stopped, to which the decision adds more."""
        self._spread = limits.placement == "spread"
        self._most = limits.max_loaded
        there = [m for m in models if m.resident and not m.remote]
        parted: list[ModelView] = []  # of which some is on nodes, or is one of several copies
        if "/" in "".join([device for m in there for device, _ in m.on]) or any(
            m.copies for m in there
        ):
            parted = [m for m in there if m.copies or any("/" in device for device, _ in m.on)]
            there = [m for m in there if not m.copies and all("/" not in d for d, _ in m.on)]
        self._here = MachineRoom(HERE, memory, limits.budget, there)
        self._nodes = {name: MachineRoom(name, memory.nodes[name]) for name in sorted(memory.nodes)}
        #: Those that count for ``max_loaded``, and of them those that nobody unloads.
        self._there = {*self._here.taken}
        self._staying = {*self._here.staying}
        self._all_here = not self._nodes and not parted
        self._copied = {model.name: model for model in parted if model.copies}
        for model in parted:
            if not model.copies:
                self._add_parts(model, model.name, model.on)
            for copy in model.copies:
                key = key_of(model.name, copy)
                self._add_parts(model, key, copy.on)
                if copy.leaving:
                    leaving.add(key)
        self._able_for: dict[str, Set[str]] = {}
        self.leaving = leaving
        self.draining: set[str] = set()  # by a choice made for an older newcomer

    def _add_parts(self, model: ModelView, name: str, on: Placement) -> None:
        """Count a model, or a copy of it, where it is, but for nodes that take no models now."""
        ram = self._here.memory.ram
        for machine, part in by_machine(on).items():
            size = 0
            if machine == HERE:
                size = sum(size for device, size in part if ram is None or device != ram.name)
            elif machine not in self._nodes:
                continue
            self._at(machine).add(name, part, size, stays=model.stays)
            self._there.add(model.name)
            if model.stays:
                self._staying.add(model.name)

    # --- whether it would fit --------------------------------------------------------------------

    def may_run(self, model: ModelView) -> bool:
        """Return whether a machine is there on which it may run."""
        return model.demand.here or bool(model.demand.elsewhere.keys() & self._nodes.keys())

    def ever_fits(self, model: ModelView) -> bool:
        """Return whether it would fit if everything had gone that can go, other programs too."""
        return self._fits(model, ever=True)

    def could_fit(self, model: ModelView) -> bool:
        """Return whether it would fit if every model had gone that can go, beside
        other programs.
        """
        return self._fits(model, hopeful=True)

    def _fits(self, model: ModelView, *, ever: bool = False, hopeful: bool = False) -> bool:
        if self._full(None):
            return False
        for machine, demand in self._machines_for(model):
            if machine.place(model, demand, None, ever=ever, hopeful=hopeful) is not None:
                return True
        return False

    def _machines_for(self, model: ModelView) -> Sequence[tuple[MachineRoom, Demand]]:
        """Return the machines on which it may run, or those together, and what it needs there."""
        alone = self._alone(model)
        leads = [(m, d) for m, d in alone if d.helpers and m.name in self._nodes]
        if not leads or any(_holds(machine, model, demand) for machine, demand in alone):
            return alone
        spans: dict[str, tuple[MachineRoom, Demand]] = {}
        for machine, demand in leads:
            whole = replace(demand, devices=(), shares=())
            for away in (_NONE, None):
                span = self._least_span(model, machine, whole, away)
                if span is not None:
                    spans[span.name] = span, whole
        return [*alone, *spans.values()]

    def _least_span(
        self, model: ModelView, leads: MachineRoom, demand: Demand, away: Set[str] | None
    ) -> SpanRoom | None:
        """Return the fewest machines that could hold it, without those ``away``; of those that
        can help, the ones with the most room. If all are too few, those that there may be.
        """
        helpers = [self._nodes[name] for name in demand.helpers if name in self._nodes]
        helpers.sort(key=lambda helper: (-helper.free(away), helper.name))
        span: SpanRoom | None = None
        for count in range(1, min(len(helpers), demand.most_helpers) + 1):
            span = SpanRoom([leads, *helpers[:count]])
            if _holds(span, model, demand, away):
                break
        return span

    def _alone(self, model: ModelView) -> Sequence[tuple[MachineRoom, Demand]]:
        """Return the machines on which it may run alone, and what it needs there."""
        demand = model.demand
        here = [(self._here, demand)] if demand.here else []
        if not demand.elsewhere:
            return here
        every = demand.elsewhere
        return here + [(self._nodes[name], every[name]) for name in self._nodes if name in every]

    def _demand(self, model: ModelView, machine: str) -> Demand:
        """Return what it needs on a machine, or on several together."""
        if machine == HERE:
            return model.demand
        demand = model.demand.elsewhere[leading(machine)]
        return replace(demand, devices=(), shares=()) if is_span(machine) else demand

    def _full(self, away: Set[str] | None) -> bool:
        """Return whether there are as many models as may be loaded, without those ``away``."""
        if self._most is None:
            return False
        return len(self._staying if away is None else self._there - away) >= self._most

    # --- where it goes ---------------------------------------------------------------------------

    def place(self, model: ModelView) -> Spot | None:
        """Return where ``model`` could start this moment."""
        if not self._nodes:
            return self._only_spot(model, _NONE)
        spots = [
            spot
            for machine, demand in self._machines_for(model)
            if (spot := self._spot(model, machine, demand, _NONE)) is not None
        ]
        taking = [spot for spot in spots if self._may_take(model, spot)]
        elsewhere = model.demand.elsewhere
        # Where its files are comes first.
        near = [s for s in taking if s.machine == HERE or not elsewhere[leading(s.machine)].copied]
        return self._best(near or taking)

    def place_scantily(self, model: ModelView) -> Spot | None:
        """Return where ``model`` could start this moment with no more than it can do with."""
        demand = model.demand
        scant = replace(
            _scant(demand),
            here=demand.here and demand.scant is not None,
            elsewhere={n: _scant(d) for n, d in demand.elsewhere.items() if d.scant is not None},
        )
        return self.place(replace(model, demand=scant))

    def machines(self, model: ModelView) -> list[str]:
        """Return the machines on which others may make room for ``model``."""
        if not self._nodes:
            return [HERE]
        able = self._able(model)
        return [m.name for m, _ in self._machines_for(model) if not able or m.name in able]

    def in_the_way(self, machine: str, others: Sequence[ModelView]) -> Sequence[ModelView]:
        """Return those of ``others`` that may have to go for one that is to be on ``machine``."""
        if self._all_here:
            return others
        full = self._full(self.leaving)
        there = self._there if full else self._at(machine).taken
        found = [other for other in others if other.name in there]
        if self._copied and not full:
            for model in others:
                for name in members(machine) if model.copies else ():
                    may_go = that_may_go(model, name, self.leaving)
                    found += [one for one in may_go if one not in found]
        return found

    def place_without(
        self, model: ModelView, machine: str, gone: Sequence[ModelView]
    ) -> Spot | None:
        """Return where on ``machine`` it will be when those that are leaving, and ``gone``, have
        gone.
        """
        away = self.leaving.union([m.name for m in gone])
        for name in away & self._copied.keys():
            away.update(keys_of(self._copied[name]))
        if not self._nodes:
            return self._only_spot(model, away)
        spot = self._spot(model, self._at(machine), self._demand(model, machine), away)
        return spot if spot is not None and self._may_take(model, spot) else None

    def one_more(self, model: ModelView) -> Spot | None:
        """Return where one more copy of ``model`` fits, if it is to have one: beside what is there.

        Copies are kept apart: on other machines, if there are any, then on other devices.
        """
        if model.copy is None or not model.ready or model.unload:
            return None
        return self._apart(replace(model, demand=model.copy), taken_by([model.on]))

    def _apart(self, model: ModelView, used: Mapping[str, int]) -> Spot | None:
        """Return where one more copy of ``model`` fits, at best apart from the devices ``used``."""
        every = [one for one in self._alone(model) if not one[1].ran_out]
        machines = {machine_of(device) for device in used} or {HERE}
        others = [(machine, demand) for machine, demand in every if machine.name not in machines]
        for where, without in ((others, _NONE), (every, used.keys()), (every, _NONE)):
            found = [
                machine.spot(model, demand, _NONE, without=without) for machine, demand in where
            ]
            fitting = [spot for spot in found if spot is not None and spot.left >= 0]
            if (best := self._best(fitting)) is not None:
                return best
        return None

    def _only_spot(self, model: ModelView, away: Set[str]) -> Spot | None:
        """Return the same where there is no other machine to compare with."""
        if self._full(away) or not model.demand.here:
            return None
        on = self._here.place(model, model.demand, away)
        return None if on is None else Spot(HERE, on, 0)

    def _spot(
        self, model: ModelView, machine: MachineRoom, demand: Demand, away: Set[str]
    ) -> Spot | None:
        return None if self._full(away) else machine.spot(model, demand, away)

    def _may_take(self, model: ModelView, spot: Spot) -> bool:
        """Return whether it fits there at its word, or no other machine could hold it."""
        able = self._able(model)
        if able and spot.machine not in able and self._demand(model, spot.machine).ran_out:
            return False
        return spot.left >= 0 or not able - {spot.machine}

    def _able(self, model: ModelView) -> Set[str]:
        """Return the machines that could hold it, at its word, if all had gone that can go; of
        those none where memory ran out, if there are others.
        """
        able = self._able_for.get(model.name)
        if able is None:
            found = [
                machine.spot(model, demand, None, hopeful=True)
                for machine, demand in self._machines_for(model)
            ]
            able = {spot.machine for spot in found if spot is not None and spot.left >= 0}
            fresh = {name for name in able if not self._demand(model, name).ran_out}
            self._able_for[model.name] = able = fresh or able
        return able

    def _best(self, spots: Sequence[Spot]) -> Spot | None:
        if len(spots) < 2:
            return spots[0] if spots else None
        fitting = [spot for spot in spots if spot.left >= 0]
        if not fitting:
            return max(spots, key=lambda spot: spot.left)
        if self._spread:
            return min(fitting, key=lambda spot: self._at(spot.machine).crowd)
        few = {spot.machine: len(members(spot.machine)) for spot in fitting}
        return min(fitting, key=lambda s: (s.machine != HERE, few[s.machine], s.left))

    def _at(self, machine: str) -> MachineRoom:
        if machine == HERE:
            return self._here
        names = members(machine)
        if len(names) > 1:
            return SpanRoom([self._nodes[name] for name in names])
        return self._nodes[machine]

    # --- what is done about it -------------------------------------------------------------------

    def reserve(self, model: ModelView, spot: Spot | None) -> None:
        """Keep a place for it, or for one more copy, against those that came later.

        Where it has none yet, it counts all the same.
        """
        self._there.add(model.name)
        if spot is not None:
            parts = by_machine(spot.on)
            for machine in members(spot.machine):
                size = model.demand.size
                self._at(machine).add(model.name, parts.get(machine, spot.on), size)
        elif model.demand.here:
            self._here.add(model.name, (), model.demand.size)


def _holds(
    machine: MachineRoom, model: ModelView, demand: Demand, away: Set[str] | None = None
) -> bool:
    """Return whether it fits there, at its word; without ``away``, if all had gone that can go."""
    spot = machine.spot(model, demand, away, hopeful=away is None)
    return spot is not None and spot.left >= 0


def _scant(demand: Demand) -> Demand:
    return replace(demand, least=min(demand.scant or 0, demand.least))
