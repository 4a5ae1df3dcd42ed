"""Views of models on several machines, given or random, and what must hold of decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from gateway.backends.decision import (
    Act,
    Action,
    CopyView,
    Decision,
    ModelView,
    SchedulingLimits,
)
from gateway.backends.placement import (
    HERE,
    Card,
    Demand,
    Memory,
    Placement,
    machine_of,
    place,
    taken_by,
)
from tests.model_views import NOW, STATES, need, times

NODES = ("attic", "cellar")
_WORKING = ("ready", "draining", "stopping")


def machine(**cards: tuple[int, int] | int) -> Memory:
    """The memory of one machine, as just seen: name -> (size, left), or both in one."""
    pairs = {n: (s, s) if isinstance(s, int) else s for n, s in cards.items()}
    return Memory(tuple(Card(name, *pair) for name, pair in pairs.items()), seen=NOW)


def cluster(here: Memory, **nodes: Memory) -> Memory:
    """The memory of this machine and of nodes, whose devices get their full names."""
    named = {
        node: replace(its, cards=tuple(replace(c, name=f"{node}/{c.name}") for c in its.cards))
        for node, its in nodes.items()
    }
    return replace(here, nodes=named)


def anywhere(size: int, *nodes: str, here: bool = True, least: int | None = None) -> Demand:
    """What needs the same on each machine where it may run."""
    one = Demand(size, size if least is None else least)
    return replace(one, here=here, elsewhere=dict.fromkeys(nodes, one))


# --- random ones ---------------------------------------------------------------------------------

_cards = st.lists(
    st.tuples(st.integers(4, 12), st.sampled_from([0, 0, 0, 3])), min_size=1, max_size=2
)
_one_machine = _cards.map(
    lambda cards: machine(**{f"G{i}": (size, size - held) for i, (size, held) in enumerate(cards)})
)
memories = st.builds(
    lambda here, nodes: cluster(here, **nodes),
    _one_machine,
    st.dictionaries(st.sampled_from(NODES), _one_machine),
)
_alone = st.sampled_from([*range(10), 8, 9, 10]).flatmap(
    lambda size: st.sampled_from([need(size), need(size), Demand(size, size * 85 // 100)])
)
demands = st.builds(
    lambda one, here, elsewhere: replace(one, here=here, elsewhere=elsewhere),
    _alone,
    st.sampled_from([True, True, False]),
    st.dictionaries(st.sampled_from((*NODES, "away")), _alone),
)
_states = st.sampled_from(["ready", "ready", "ready", *STATES])


@st.composite
def views_on(draw: st.DrawFn, memory: Memory) -> list[ModelView]:
    """Models on the devices of ``memory``, and on a node that is away."""
    devices = [c.name for its in machines(memory).values() for c in its.cards] + ["away/G0"]
    rarely = st.sampled_from([False] * 9 + [True])
    models = []
    for name in "abcdef":
        state = draw(_states) if name != "a" else draw(st.sampled_from(["absent"] * 9 + ["ready"]))
        demand: Demand = draw(demands)
        on: Placement = ()
        if state != "absent":
            for device in draw(st.lists(st.sampled_from(devices), min_size=1, max_size=2)):
                on = (*on, (device, demand.size))
            own = sum(size for device, size in on if machine_of(device) == HERE)
            demand = replace(demand, size=own)
        copies: list[CopyView] = []
        if state == "ready" and len(on) > 1:
            for number, part in enumerate(on if draw(st.booleans()) else ()):
                leaving, working = draw(rarely), draw(st.sampled_from([0, 0, 1]))
                up = not number or not draw(rarely)
                copies.append(CopyView(number, (part,), working, draw(times), up, leaving))
            if copies and all(copy.leaving or not copy.ready for copy in copies):
                copies[0] = replace(copies[0], ready=True, leaving=False)
        waits = state != "ready" and (name == "a" or draw(rarely | st.booleans()))
        models.append(
            ModelView(
                name,
                **STATES[state],
                in_flight=sum(c.in_flight for c in copies)
                if copies
                else draw(st.sampled_from([0, 0, 1]))
                if state in _WORKING
                else 0,
                waiting=int(waits),
                oldest_wait=draw(times) if waits else None,
                demand=demand,
                copy=draw(demands) if state == "ready" and draw(rarely) else None,
                on=on,
                copies=tuple(copies),
                last_used=max(c.last_used for c in copies) if copies else draw(times),
                recent_until=draw(times),
                ready_since=draw(times),
                load_time=draw(st.none() | st.floats(0, 30)),
                alone=draw(rarely),
                pinned=draw(rarely),
                unload=draw(rarely) if state != "absent" else False,
                expires=NOW if draw(rarely) else None,
            )
        )
    return models


# --- what must hold ------------------------------------------------------------------------------


def machines(memory: Memory) -> Mapping[str, Memory]:
    return {HERE: memory, **memory.nodes}


def demand_on(model: ModelView, where: str) -> Demand | None:
    if where == HERE:
        return model.demand if model.demand.here else None
    return model.demand.elsewhere.get(where)


def at(model: ModelView) -> set[str]:
    """The machines that it is on."""
    return {machine_of(device) for device, _ in model.on} or {HERE}


def parts(models: Iterable[ModelView]) -> list[ModelView]:
    """Each copy of a model as a model of its own."""
    found = []
    for model in models:
        found += [
            replace(
                model,
                name=f"{model.name}#{copy.number}",
                on=copy.on,
                copies=(),
                stopping=model.stopping or copy.leaving,
            )
            for copy in model.copies
        ] or [model]
    return found


def parts_of(action: Action, model: ModelView) -> frozenset[str]:
    """What of the model an action ends."""
    if action.act is Act.STOP_COPY:
        return frozenset({f"{model.name}#{action.copy}"})
    return frozenset(part.name for part in parts([model]))


def _stays(model: ModelView) -> bool:
    return model.pinned and not model.stopping and not model.unload


class Beside:
    """What is on each machine: models that stay as they are, and placements of others."""

    def __init__(
        self, memory: Memory, limits: SchedulingLimits, models: Iterable[ModelView]
    ) -> None:
        self.memory, self.limits = memory, limits
        self.on: dict[str, dict[str, Placement]] = {name: {} for name in machines(memory)}
        self.staying = set()
        for model in models:
            if _stays(model):
                self.staying.add(model.name)
            for where in at(model) & self.on.keys():
                self.add(model.name, tuple(d for d in model.on if machine_of(d[0]) == where), where)

    def add(self, name: str, on: Placement, where: str) -> None:
        self.on[where][name] = self.on[where].get(name, ()) + on

    @property
    def full(self) -> bool:
        names = {name.partition("#")[0] for name in set[str]().union(*self.on.values())}
        return self.limits.max_loaded is not None and len(names) >= self.limits.max_loaded

    def over_budget(self, size: int, where: str) -> bool:
        if where != HERE or self.limits.budget is None or not self.on[HERE]:
            return False
        return size + sum(taken_by(self.on[HERE].values()).values()) > self.limits.budget

    def taken(self, where: str) -> dict[str, int]:
        return taken_by(self.on[where].values())

    def fits(self, model: ModelView, where: str, *, at_its_word: bool = True) -> bool:
        demand = demand_on(model, where)
        if demand is None or where not in self.on or self.full:
            return False
        last = self.on[where].keys() <= self.staying
        if (model.alone and not last) or self.over_budget(demand.size, where):
            return False
        its, taken = machines(self.memory)[where], self.taken(where)
        on = place(demand, its, taken, last=last)
        left = {card.name: card.left - taken.get(card.name, 0) for card in its.cards}
        if on is None or not at_its_word:
            return on is not None
        if where == HERE and self.limits.budget is not None:
            together = sum(self.taken(HERE).values()) + demand.size
            return together <= self.limits.budget and all(s <= left[d] for d, s in on)
        return all(size <= left[device] for device, size in on)


def check(
    models: Sequence[ModelView],
    limits: SchedulingLimits,
    memory: Memory,
    decision: Decision,
    now: float,
) -> None:
    """What must hold of every decision where there are several machines."""
    by_name = {m.name: m for m in models}
    there = parts(m for m in models if m.resident)
    beside = Beside(memory, limits, there)
    most = Beside(memory, limits, [m for m in there if _stays(m)])  # the most room there could be
    needy = [
        m for m in models if m.oldest_wait is not None and not m.resident and m.blocked_until <= now
    ]
    going: dict[str, list[frozenset[str]]] = {}
    _check_copies(by_name, decision)
    for action in decision.actions:
        model = by_name[action.model]
        match action.act:
            case Act.START:
                assert not model.resident
                assert not beside.full
                _check_place(action, model, beside, most)
            case Act.COPY:
                assert model.ready
                assert model.copy is not None
                assert not needy
                assert not any(m.alone for m in models)
                _check_place(action, replace(model, demand=model.copy), beside, most)
            case Act.STOP:
                assert model.unload or not model.pinned
                assert model.in_flight == 0
                if action.room_for is not None:
                    going.setdefault(action.room_for, []).append(parts_of(action, model))
            case Act.STOP_COPY:
                (copy,) = [c for c in model.copies if c.number == action.copy]
                if action.room_for is None:
                    assert model.expires is not None
                    assert not copy.in_flight
                elif not copy.in_flight:
                    going.setdefault(action.room_for, []).append(parts_of(action, model))
                else:
                    (part,) = [p for p in there if p.name in parts_of(action, model)]
                    assert any(_helps([part], newcomer, most) for newcomer in needy)
            case Act.DRAIN:
                assert not model.pinned
                assert any(_helps(parts([model]), newcomer, most) for newcomer in needy)
            case Act.REFUSE:
                free = replace_left(memory)
                ever = Beside(free, limits, [m for m in there if _stays(m)])
                assert not any(ever.fits(model, where, at_its_word=False) for where in ever.on)
                assert any(demand_on(model, where) is not None for where in ever.on)
    for name, victims in going.items():
        those = [[part for part in there if part.name in victim] for victim in victims]
        assert all(_helps(victim, by_name[name], most) for victim in those)
        if len(needy) == 1 and not any(a.act is Act.START for a in decision.actions):
            _check_victims(by_name[name], those, models, decision, memory, limits)


def _check_copies(by_name: Mapping[str, ModelView], decision: Decision) -> None:
    """A model whose copies end goes on with one that is ready, unless it ends itself."""
    ending: dict[str, set[int]] = {}
    for action in decision.actions:
        if action.act is Act.STOP_COPY:
            ending.setdefault(action.model, set()).add(action.copy)
    for name, numbers in ending.items():
        model = by_name[name]
        assert not model.pinned
        stay = [c for c in model.copies if c.ready and not c.leaving and c.number not in numbers]
        assert stay or any(a == Action(Act.STOP, name) for a in decision.actions)


def replace_left(memory: Memory) -> Memory:
    """The same as if there were no other programs."""

    def free(its: Memory) -> Memory:
        return replace(its, cards=tuple(replace(c, left=c.size) for c in its.cards))

    return replace(free(memory), nodes={n: free(its) for n, its in memory.nodes.items()})


def _check_place(action: Action, model: ModelView, beside: Beside, most: Beside) -> None:
    (where,) = {machine_of(device) for device, _ in action.on} or {HERE}  # it spans none
    demand = demand_on(model, where)
    assert demand is not None, "it may not run there"
    assert where in beside.on, "that node takes nothing"
    its, taken = machines(beside.memory)[where], beside.taken(where)
    left = {card.name: card.left - taken.get(card.name, 0) for card in its.cards}
    assert not beside.over_budget(demand.size, where)
    others = beside.on[where].keys() - beside.staying
    assert not model.alone or not others
    fits = all(size <= left.get(device, size) for device, size in action.on)
    if not fits:
        assert action.act is Act.START, "a copy has to fit"
        for device, size in action.on:
            assert size <= left[device] or not taken.get(device) or not others
    alone = where == HERE and beside.limits.budget is not None and not beside.on[HERE]
    if not fits or (alone and demand.size > (beside.limits.budget or 0)):
        elsewhere = [name for name in most.on if name != where]
        assert not any(most.fits(model, name) for name in elsewhere), "it tries too early"
    beside.add(model.name, action.on, where)


def _helps(victim: Sequence[ModelView], newcomer: ModelView, most: Beside) -> bool:
    """Whether the newcomer could be on a machine where ``victim`` is, if all had gone."""
    where = set[str]().union(*map(at, victim)) & most.on.keys()
    if most.limits.max_loaded is not None:
        where = {*most.on}
    return any(most.fits(newcomer, name, at_its_word=False) for name in where)


def _check_victims(
    newcomer: ModelView,
    victims: Sequence[Sequence[ModelView]],
    models: Sequence[ModelView],
    decision: Decision,
    memory: Memory,
    limits: SchedulingLimits,
) -> None:
    """They go from one machine, where the newcomer fits without them, and with none of them."""
    there = parts(m for m in models if m.resident)
    by_name = {m.name: m for m in models}
    ends = [a for a in decision.actions if a.act in (Act.STOP, Act.STOP_COPY)]
    gone = {m.name for m in there if m.stopping}.union(
        *(parts_of(action, by_name[action.model]) for action in ends)
    )

    def fits(where: str, away: set[str]) -> bool:
        beside = Beside(memory, limits, [m for m in there if m.name not in away])
        return beside.fits(newcomer, where, at_its_word=False)

    def is_it(where: str) -> bool:
        on_it = [any(where in at(part) for part in victim) for victim in victims]
        if limits.max_loaded is None and not all(on_it):
            return False
        names = [{part.name for part in victim} for victim in victims]
        return fits(where, gone) and not any(fits(where, gone - one) for one in names)

    now = Beside(memory, limits, there)
    assert not any(now.fits(newcomer, where) for where in now.on), "nobody had to go"
    assert any(is_it(where) for where in now.on), victims


def any_case(*, limits: Any) -> Any:
    """A memory, models on it, and limits."""
    return memories.flatmap(lambda memory: st.tuples(st.just(memory), views_on(memory), limits))
