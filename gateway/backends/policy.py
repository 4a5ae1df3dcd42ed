"""Decides what to do next with several models on one machine. Pure: views in, actions out.

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
9. A remote model, on other machines, takes no place: it starts when it is asked for, counts for
   nothing and makes room for nobody.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from gateway.backends.decision import Act, Action, Decision, ModelView, SchedulingLimits
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

    room = Room(models, limits, memory)
    unseen = False  # somebody waits for a look at the memory
    needed: set[str] = set()  # models whose place somebody waits for
    _retire(models, room, actions, alarms, now)
    needy = sorted(
        (m for m in models if m.oldest_wait is not None and _needs_start(m)),
        key=lambda m: (m.oldest_wait or 0.0, m.name),
    )
    for model in needy:
        if model.blocked_until > now:
            alarms.append(model.blocked_until)
            continue
        if model.remote:
            if not model.resident:
                actions.append(Action(Act.START, model.name))
            continue
        if model.resident:  # still leaving: its old process must be gone before the new one
            room.reserve(model, model.on)
            continue
        if not room.ever_fits(model):
            actions.append(Action(Act.REFUSE, model.name))
            continue
        if memory.look is not Look.FRESH or memory.seen < (model.oldest_wait or 0.0):
            if memory.look is not Look.UNDER_WAY and not unseen:
                actions.append(Action(Act.LOOK, model.name))
            unseen = True
            continue
        on = room.place(model)
        short.discard(model.name)
        if on is not None:
            actions.append(Action(Act.START, model.name, on))
        elif not room.could_fit(model):
            short.add(model.name)
            until = (now if model.short_since is None else model.short_since) + limits.short_for
            if until <= now:
                on = room.place_scantily(model)
                if on is not None:
                    short.discard(model.name)
                    actions.append(Action(Act.START, model.name, on))
                    room.reserve(model, on)
                    continue
                actions.append(Action(Act.GIVE_UP, model.name))
            alarms.append(min(until, now + limits.look_every))
            continue  # and keeps no place: it could not use it
        else:
            chosen = _make_room(model, models, limits, room, actions, alarms, now)
            needed |= {m.name for m in chosen}
            on = room.place_without(model, chosen)
        room.reserve(model, on or ())
    for model in models:
        # Whose place is needed is known when the memory has been looked at.
        if unseen or not model.draining or model.unload:
            continue
        if model.name not in needed | room.leaving:
            actions.append(Action(Act.RESUME, model.name))
    return Decision(tuple(actions), min(alarms, default=None), frozenset(short))


def _needs_start(model: ModelView) -> bool:
    return not (model.ready or model.starting or (model.draining and not model.unload))


def _retire(
    models: Sequence[ModelView],
    room: Room,
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
                room.leave(model, actions)
        elif model.expires is not None and model.ready and idle and not model.pinned:
            if model.expires <= now:
                room.leave(model, actions)
            else:
                alarms.append(model.expires)


def _make_room(
    newcomer: ModelView,
    models: Sequence[ModelView],
    limits: SchedulingLimits,
    room: Room,
    actions: list[Action],
    alarms: list[float],
    now: float,
) -> Sequence[ModelView]:
    """Stop idle models, or drain busy ones, until ``newcomer`` will fit.

    Returns those whose place it needs.
    """
    here = (m for m in models if m.resident and not m.remote)
    others = [m for m in here if not m.pinned and m.name not in room.leaving]
    limits = replace(limits, grace=_grace(others, limits))
    idle = [m for m in others if _is_idle(m, newcomer, limits, now)]
    chosen: list[ModelView] = []
    for model in sorted(idle, key=lambda m: m.last_used):
        if room.will_fit(newcomer, chosen):
            break
        chosen.append(model)
    if room.will_fit(newcomer, chosen):
        chosen = _only_needed(newcomer, chosen, room)
        for model in chosen:
            room.leave(model, actions, newcomer.name)
        return chosen
    if not room.will_fit(newcomer, others):
        return ()  # somebody older comes first: nothing is drained in vain
    # Idle ones alone are not enough: busy ones have to end their work first.
    busy = [m for m in others if m not in idle and (m.ready or m.draining)]
    for model in sorted(busy, key=lambda m: _order(m, newcomer, limits)):
        if room.will_fit(newcomer, chosen):
            break
        chosen.append(model)
    chosen = _only_needed(newcomer, chosen, room)
    for model in chosen:
        if model in idle or model.draining or model.name in room.draining:
            continue
        due = _due(model, newcomer, limits)
        if due <= now:
            room.draining.add(model.name)
            actions.append(Action(Act.DRAIN, model.name))
        else:
            alarms.append(due)
    return chosen


def _only_needed(newcomer: ModelView, chosen: Sequence[ModelView], room: Room) -> list[ModelView]:
    """Return ``chosen`` without those that later choices have made unnecessary."""
    needed = list(chosen)
    for model in chosen:
        rest = [m for m in needed if m is not model]
        if room.will_fit(newcomer, rest):
            needed = rest
    return needed


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
) -> tuple[bool, float, float]:
    """Return who is drained first: who is being drained, then whose turn ends first."""
    return not model.draining, _due(model, newcomer, limits), model.last_used


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
