"""Decides what to do next with several models. Pure: views in, actions out.

The scheduler builds a :class:`ModelView` of each model, asks :func:`decide`, carries the
actions out, and asks again whenever something has changed. Nothing here awaits or keeps state,
so that every rule can be tested by random sequences.

The rules, in the order in which they are applied:

1. A ready model with free slots and waiters serves them, first come first served. Nothing
   that happens to another model delays that.
2. Models that are waited for are looked at in the order of their longest-waiting request. One
   that fits beside what is in memory starts.
3. For one that does not fit, idle models go, least recently used first, until it does. One that
   was used a moment ago, while the newcomer was waiting, counts as busy: its client is another
   one, and about to ask again. A newcomer that came later may be the client that was served last,
   which now wants another model, and does not wait for itself: see :func:`_kept_until`.
4. If that isn't enough, busy models are drained (no new work, what runs ends first), but only
   when they have had their turn, so that models asked for alternately are served in batches: see
   :func:`_due`. A model that is drained takes work again when nobody needs its place any more.
5. A load nobody waits for any more makes room like an idle model.
6. Space an older request waits for is not given to a younger one.
7. What will never fit beside the pinned models that are there is refused at once.
8. Free memory is looked at before anything is started, or ended for it: what other programs have
   taken is not there. Nothing ends where that would not be enough. Then the newcomer waits, since
   memory may come free, and is refused after ``short_for``.
9. A remote model, on servers that are not ours to start, takes no place: it starts when it is asked
   for, counts for nothing and makes room for nobody.
10. Where other machines (nodes) take models, one that fits on any of them starts there, before
    anything is unloaded. Otherwise room is made on one machine: where it does the least harm, see
    :func:`_harm`. Nodes tell their memory by themselves, so who may only run there waits for no
    look, unless somebody older does who may go there too. One whose machines are all away waits
    for them as it would for memory.
11. Further copies of a model start when the first one is ready, where room is left for them.
    Nothing is unloaded for them, and they come after everyone who waits. There are none while
    somebody must have all the memory that can be had. Each makes room for others before models do,
    as long as another one stays, and goes when it was idle for its model's ``ttl``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from functools import partial
from typing import Final, NamedTuple

from gateway.backends.copies import idle_copies
from gateway.backends.decision import Act, Action, Decision, ModelView, SchedulingLimits
from gateway.backends.machine_room import Spot
from gateway.backends.placement import Look, Memory
from gateway.backends.room import Room

_UNKNOWN: Final = Memory()


def decide(
    models: Sequence[ModelView], limits: SchedulingLimits, now: float, memory: Memory = _UNKNOWN
) -> Decision:
    """Return the next actions. At most one grant a model: ask again after carrying them out."""
    actions: list[Action] = []
    alarms: list[float] = []
    for model in models:
        if model.ready and model.wanted:
            actions.append(Action(Act.LOADED, model.name))
        if model.ready and model.waiting and model.in_flight < model.slots:
            actions.append(Action(Act.GRANT, model.name))
    # As long as nothing else is known, who waited for memory goes on waiting for it.
    short = {m.name for m in models if m.short_since is not None and m.oldest_wait is not None}
    if actions:
        return Decision(tuple(actions), now, frozenset(short))

    leaving = {m.name for m in models if m.resident and m.stopping}
    _retire(models, leaving, actions, alarms, now)
    needed: set[str] = set()  # models whose place somebody waits for
    unseen = False  # somebody waits for a look at the memory
    needy = [m for m in models if m.oldest_wait is not None and _needs_start(m)]
    if needy:
        needy.sort(key=lambda m: (m.oldest_wait or 0.0, m.name))
        room = Room(models, limits, memory, leaving)
        unseen = _let_in(needy, models, limits, memory, room, needed, short, actions, alarms, now)
    elif any(m.copy is not None for m in models) and not any(m.alone for m in models):
        room = Room(models, limits, memory, leaving)
        for model in models:
            if (spot := room.one_more(model)) is not None:
                actions.append(Action(Act.COPY, model.name, spot.on))
                room.reserve(model, spot)
    for model in models:
        # Whose place is needed is known when the memory has been looked at.
        if unseen or not model.draining or model.unload:
            continue
        if model.name not in needed | leaving:
            actions.append(Action(Act.RESUME, model.name))
    return Decision(tuple(actions), min(alarms, default=None), frozenset(short))


def _let_in(
    needy: Sequence[ModelView],
    models: Sequence[ModelView],
    limits: SchedulingLimits,
    memory: Memory,
    room: Room,
    needed: set[str],
    short: set[str],
    actions: list[Action],
    alarms: list[float],
    now: float,
) -> bool:
    """Start those who wait, in their order, or make room for them.

    Returns whether one of them waits for a look at the memory.
    """
    unseen = False
    awaited: set[str] = set()  # nodes where they may go then
    for model in needy:
        if model.blocked_until > now:
            alarms.append(model.blocked_until)
            continue
        if model.remote:
            if not model.resident:
                actions.append(Action(Act.START, model.name))
            continue
        if model.resident:  # still leaving: its old process must be gone before the new one
            continue
        demand = model.demand
        unsure = memory.look is not Look.FRESH or memory.seen < (model.oldest_wait or 0.0)
        if unsure and not demand.here:  # it waits only where it could overtake those who do
            few = limits.max_loaded is not None
            unsure = unseen and (few or not awaited.isdisjoint(demand.elsewhere))
        spot = None if unsure else room.place(model)
        if spot is None and room.may_run(model) and not room.ever_fits(model):
            actions.append(Action(Act.REFUSE, model.name))
            continue
        if unsure:
            if memory.look is not Look.UNDER_WAY and not unseen:
                actions.append(Action(Act.LOOK, model.name))
            unseen = True
            awaited.update(demand.elsewhere)
            continue
        short.discard(model.name)
        if spot is None and not room.could_fit(model):
            until = (now if model.short_since is None else model.short_since) + limits.short_for
            if until <= now:
                spot = room.place_scantily(model)
            if spot is None:
                short.add(model.name)
                if until <= now:
                    actions.append(Action(Act.GIVE_UP, model.name))
                alarms.append(min(until, now + limits.look_every) if demand.here else until)
                continue  # and keeps no place: it could not use it
        if spot is not None:
            actions.append(Action(Act.START, model.name, spot.on))
        else:
            chosen, spot = _make_room(model, models, limits, room, actions, alarms, now)
            needed |= {m.name for m in chosen}
        room.reserve(model, spot)
    return unseen


def _needs_start(model: ModelView) -> bool:
    return not (model.ready or model.starting or (model.draining and not model.unload))


def _retire(
    models: Sequence[ModelView],
    leaving: set[str],
    actions: list[Action],
    alarms: list[float],
    now: float,
) -> None:
    """Unload models that were asked to go, or were idle for too long."""
    for model in models:
        if not model.resident or model.stopping:
            continue
        idle = model.in_flight == 0 and not model.waiting and not model.wanted
        if model.unload:
            if model.in_flight == 0:
                _leave(model, leaving, actions)
        elif model.expires is not None and model.ready and not model.pinned:
            if idle and model.expires <= now:
                _leave(model, leaving, actions)
                continue
            if idle:
                alarms.append(model.expires)
            for copy in idle_copies(model):
                if (expires := copy.last_used + model.expires - model.last_used) <= now:
                    _leave(copy, leaving, actions)
                else:
                    alarms.append(expires)


def _leave(
    model: ModelView, leaving: set[str], actions: list[Action], room_for: str | None = None
) -> None:
    """Stop it. Its place counts as taken until the process is gone.

    ``room_for``: the model that needs that place.
    """
    if model.name not in leaving:
        leaving.add(model.name)
        if model.spare_of is None:
            actions.append(Action(Act.STOP, model.name, room_for=room_for))
        else:
            goes = Action(Act.STOP_COPY, model.spare_of, copy=model.number, room_for=room_for)
            actions.append(goes)


class _Plan(NamedTuple):
    """Who has to go from a machine until a newcomer fits there, and where it will be then.

    ``at_once``: all of them are idle. ``spot`` is ``None`` where a load has to end, too.
    """

    chosen: Sequence[ModelView]
    spot: Spot | None
    at_once: bool


def _make_room(
    newcomer: ModelView,
    models: Sequence[ModelView],
    limits: SchedulingLimits,
    room: Room,
    actions: list[Action],
    alarms: list[float],
    now: float,
) -> tuple[Sequence[ModelView], Spot | None]:
    """Stop idle models, or drain busy ones, until ``newcomer`` will fit.

    Returns those whose place it needs, and where it will be.
    """
    there = (m for m in models if m.resident and not m.remote)
    others = [m for m in there if not m.pinned and m.name not in room.leaving]
    limits = replace(limits, grace=_grace(others, limits))
    there_are = {machine: room.in_the_way(machine, others) for machine in room.machines(newcomer)}
    every = {m.name: m for those in there_are.values() for m in those}
    idle = {m.name for m in every.values() if _is_idle(m, newcomer, limits, now)}
    tried = (
        _plan(newcomer, machine, those, idle, limits, room) for machine, those in there_are.items()
    )
    plans = [plan for plan in tried if plan is not None]
    if not plans:
        return (), None  # somebody older comes first: nothing is drained in vain
    plan = plans[0]
    if len(plans) > 1:
        plan = min(plans, key=lambda plan: _harm(plan, newcomer, idle, limits, room))
    for model in plan.chosen:
        if plan.at_once:
            _leave(model, room.leaving, actions, newcomer.name)
        elif model.name in idle or model.draining or model.name in room.draining:
            continue
        elif (due := _due(model, newcomer, limits)) <= now and model.spare_of is not None:
            _leave(model, room.leaving, actions, newcomer.name)
        elif due <= now:
            room.draining.add(model.name)
            actions.append(Action(Act.DRAIN, model.name))
        else:
            alarms.append(due)
    return plan.chosen, plan.spot


def _plan(
    newcomer: ModelView,
    machine: str,
    others: Sequence[ModelView],
    idle: Set[str],
    limits: SchedulingLimits,
    room: Room,
) -> _Plan | None:
    """Return who of ``others`` has to go from ``machine``; ``None``: that would not be enough."""
    place = partial(room.place_without, newcomer, machine)
    chosen: list[ModelView] = []
    spot = place(chosen)
    for model in sorted([m for m in others if m.name in idle], key=_least_harm):
        if spot is not None:
            break
        chosen.append(model)
        spot = place(chosen)
    if spot is not None:
        return _Plan(*_only_needed(chosen, spot, place), at_once=True)
    if place(others) is None:
        return None
    # Idle ones alone are not enough: busy ones have to end their work first.
    busy = [m for m in others if m.name not in idle and (m.ready or m.draining)]
    for model in sorted(busy, key=lambda m: _order(m, newcomer, limits)):
        if spot is not None:
            break
        chosen.append(model)
        spot = place(chosen)
    if spot is None:
        return _Plan(chosen, None, at_once=False)
    return _Plan(*_only_needed(chosen, spot, place), at_once=False)


def _only_needed(
    chosen: Sequence[ModelView], spot: Spot, place: Callable[[Sequence[ModelView]], Spot | None]
) -> tuple[Sequence[ModelView], Spot]:
    """Return ``chosen`` without those that later choices have made unnecessary, and the place
    that is there then.
    """
    needed = chosen
    for model in chosen[:-1]:  # without the last one it did not fit
        rest = [m for m in needed if m is not model]
        if (other := place(rest)) is not None:
            needed, spot = rest, other
    return needed, spot


def _harm(
    plan: _Plan, newcomer: ModelView, idle: Set[str], limits: SchedulingLimits, room: Room
) -> tuple[bool, bool, bool, bool, float, float, int]:
    """Return what is compared to choose the machine on which room is made.

    Idle models go before busy ones, copies before models, and of those such as are drained already,
    so that a choice lasts; then those whose turns end first, those least recently used, and the
    fewest.
    """
    busy = () if plan.at_once else [m for m in plan.chosen if m.name not in idle]
    return (
        not plan.at_once,
        plan.spot is None,
        any(m.spare_of is None for m in plan.chosen),
        any(not m.draining and m.name not in room.draining for m in busy),
        max((_due(m, newcomer, limits) for m in busy), default=-math.inf),
        max((m.last_used for m in plan.chosen), default=-math.inf),
        len(plan.chosen),
    )


def _least_harm(model: ModelView) -> tuple[bool, float]:
    """Return who goes first of those that are idle: copies whose models stay, then the oldest."""
    return model.spare_of is None, model.last_used


def _is_idle(model: ModelView, newcomer: ModelView, limits: SchedulingLimits, now: float) -> bool:
    if model.in_flight:
        return False
    unwanted = not model.waiting and not model.wanted
    return model.draining or (unwanted and _kept_until(model, newcomer, limits) <= now)


def _kept_until(model: ModelView, newcomer: ModelView, limits: SchedulingLimits) -> float:
    """Return until when ``model``, which is idle, keeps its place while ``newcomer`` waits.

    Two clients in turn: one waits while the other is served. The place of the one served is kept
    for as long as a load takes, since to come back would cost that. A single client asks for its
    next model when it has been answered, or has hung up, which is noticed a little late. Only a
    tenth of a load is kept then, for a client whose next request is on its way.
    """
    assert newcomer.oldest_wait is not None
    vied = newcomer.oldest_wait < model.last_used - limits.late or (
        min(model.vied, newcomer.vied) > newcomer.oldest_wait - 2 * limits.turn(model, newcomer)
    )
    if vied:
        return model.recent_until
    return min(model.recent_until, model.last_used + limits.grace)


def _grace(models: Sequence[ModelView], limits: SchedulingLimits) -> float:
    """Return one for all of them, so that those least recently used go first."""
    loads = [m.load_time for m in models if m.load_time is not None]
    return min(limits.grace, 0.1 * min(loads, default=math.inf))


def _order(
    model: ModelView, newcomer: ModelView, limits: SchedulingLimits
) -> tuple[bool, bool, float, float]:
    """Return who is drained first: who is being drained, copies, then whose turn ends first."""
    return (
        not model.draining,
        model.spare_of is None,
        _due(model, newcomer, limits),
        model.last_used,
    )


def _due(model: ModelView, newcomer: ModelView, limits: SchedulingLimits) -> float:
    """Return when ``model``, which is in use, has to make room for ``newcomer``.

    When the newcomer has been patient and the model has had its turn. Who has waited for
    ``longest_wait`` already, beside the load of this model, puts up with the first of it alone.
    """
    assert newcomer.oldest_wait is not None
    turn = limits.turn(model, newcomer)
    due = max(
        newcomer.oldest_wait + min(limits.patience, turn),
        model.ready_since + min(limits.first_turn, turn),
        min(
            model.ready_since + turn,
            newcomer.oldest_wait + limits.longest_wait + (model.load_time or 0.0),
        ),
    )
    if model.in_flight or model.waiting or model.wanted:
        return due
    return min(due, _kept_until(model, newcomer, limits))  # then it is idle
