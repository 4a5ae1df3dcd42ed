"""Each rule by example, any view at all, and a simulated world that runs through everything."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.backends.decision import Act, Action, Decision, ModelView, SchedulingLimits
from gateway.backends.placement import Card, Demand, Look, Memory
from gateway.backends.policy import decide

NOW = 1000.0
ONE = SchedulingLimits(max_loaded=1, patience=15)


def ready(name: str, **changes: Any) -> ModelView:
    return ModelView(name, resident=True, ready=True, **changes)


def starting(name: str, **changes: Any) -> ModelView:
    return ModelView(name, resident=True, starting=True, **changes)


def draining(name: str, **changes: Any) -> ModelView:
    return ModelView(name, resident=True, draining=True, **changes)


def stopping(name: str, **changes: Any) -> ModelView:
    return ModelView(name, resident=True, stopping=True, **changes)


def wanted(name: str, since: float = NOW, **changes: Any) -> ModelView:
    """A model that isn't there, with one waiter."""
    return ModelView(name, waiting=1, oldest_wait=since, **changes)


def need(size: int) -> Demand:
    return Demand(size, size)


def acts(
    models: Sequence[ModelView], limits: SchedulingLimits = ONE, now: float = NOW
) -> list[str]:
    return [f"{a.act.name} {a.model}" for a in decide(models, limits, now).actions]


def wake(models: Sequence[ModelView], limits: SchedulingLimits = ONE) -> float | None:
    return decide(models, limits, NOW).wake_at


# --- rule 1: a ready model serves ----------------------------------------------------------


def test_a_free_slot_is_given_to_the_first_waiter_and_loaders_are_told():
    a = ready("a", in_flight=1, slots=2, waiting=5, wanted=1, oldest_wait=NOW)
    assert acts([a]) == ["LOADED a", "GRANT a"]


def test_no_slot_no_grant():
    assert acts([ready("a", in_flight=2, slots=2, waiting=5, oldest_wait=NOW)]) == []


def test_a_grant_does_not_wait_for_anything_else():
    others = [wanted("old", since=0), starting("s", waiting=3, oldest_wait=1), stopping("t")]
    a = ready("a", waiting=1, oldest_wait=NOW)
    assert acts([*others, a], SchedulingLimits(max_loaded=4))[0] == "GRANT a"


@pytest.mark.parametrize("a", [draining("a", waiting=1), stopping("a", waiting=1)])
def test_one_that_leaves_gets_no_work(a):
    assert "GRANT a" not in acts([replace(a, oldest_wait=NOW, unload=True)])


# --- rule 2: starts, in the order of the longest wait --------------------------------------


def test_what_fits_starts():
    assert acts([wanted("a"), wanted("b")], SchedulingLimits()) == ["START a", "START b"]


def test_the_longest_wait_comes_first():
    assert acts([wanted("a", since=5), wanted("b", since=4)]) == ["START b"]


def test_a_budget_is_kept():
    limits = SchedulingLimits(budget=10)
    assert acts([wanted("a", 1, demand=need(6)), wanted("b", 2, demand=need(4))], limits) == [
        "START a",
        "START b",
    ]
    assert acts([wanted("a", 1, demand=need(6)), wanted("b", 2, demand=need(5))], limits) == [
        "START a"
    ]
    assert (
        acts([starting("c", demand=need(6), wanted=1), wanted("b", demand=need(5))], limits) == []
    )


def test_alone_anything_may_try():
    assert acts([wanted("a", demand=need(99))], SchedulingLimits(budget=10)) == ["START a"]
    assert acts(
        [wanted("a", demand=need(99)), wanted("b", demand=need(1))], SchedulingLimits(budget=10)
    ) == ["START a"]


def test_backoff_is_waited_for_and_keeps_no_place():
    blocked = wanted("a", 1, blocked_until=NOW + 3)
    assert acts([blocked, wanted("b", 2)]) == ["START b"]
    assert wake([blocked]) == NOW + 3
    assert acts([blocked], now=NOW + 3) == ["START a"]


# --- rule 3: idle models go ----------------------------------------------------------------


def test_the_least_recently_used_idle_one_goes():
    idle = [ready("a", last_used=2), ready("b", last_used=1), ready("c", last_used=3)]
    assert acts([*idle, wanted("x")], SchedulingLimits(max_loaded=3)) == ["STOP b"]


def test_no_more_go_than_are_needed():
    idle = [ready("small", demand=need(1), last_used=1), ready("big", demand=need(9), last_used=2)]
    assert acts([*idle, wanted("x", demand=need(9))], SchedulingLimits(budget=10)) == ["STOP big"]


def test_the_place_of_one_that_stops_is_taken_until_it_has_gone():
    assert acts([stopping("a"), wanted("x")]) == []
    assert acts([wanted("x")]) == ["START x"]


def test_none_goes_while_enough_is_going_already():
    assert acts([stopping("a"), ready("b"), wanted("x")], SchedulingLimits(max_loaded=2)) == []


def test_one_that_died_starts_again_in_its_own_place():
    dying = stopping("a", waiting=1, oldest_wait=1)
    assert acts([dying, wanted("b", 2)]) == []
    assert acts([wanted("a", 1), wanted("b", 2)]) == ["START a"]


# --- rule 4: busy models are drained -------------------------------------------------------


def busy(name: str, **changes: Any) -> ModelView:
    return ready(name, in_flight=1, **changes)


def test_a_busy_one_is_drained_when_the_newcomer_has_been_patient():
    models = [busy("a"), wanted("x")]
    assert acts(models, now=NOW + 14.9) == []
    assert wake(models) == NOW + 15
    assert acts(models, now=NOW + 15) == ["DRAIN a"]


def test_a_turn_is_as_long_as_a_few_swaps():
    models = [busy("a", ready_since=NOW - 3, load_time=2), wanted("x", since=NOW - 3, load_time=1)]
    assert acts(models) == []
    assert wake(models) == NOW - 3 + 12
    assert acts(models, now=NOW + 9) == ["DRAIN a"]
    slow = [replace(models[0], load_time=5), models[1]]  # 24 s
    assert wake(slow) == NOW + 21
    fast = [replace(models[0], load_time=0.1), replace(models[1], load_time=0.1)]
    assert acts(fast, now=NOW - 3 + 1.9) == []
    assert acts(fast, now=NOW - 3 + 2) == ["DRAIN a"]


def test_the_longest_turn_is_bounded():
    models = [busy("a", ready_since=NOW, load_time=500), wanted("x", since=NOW)]
    assert wake(models) == NOW + 60


def test_who_has_waited_for_long_waits_for_no_long_turn():
    models = [busy("a", ready_since=NOW, load_time=10), wanted("x", since=NOW - 68)]
    assert wake(models) == NOW + 5  # but for what is no turn if it is shorter
    assert acts(models, now=NOW + 5) == ["DRAIN a"]
    models[1] = wanted("x", since=NOW - 60)
    assert wake(models) == NOW + 10


def test_one_that_was_used_a_moment_ago_counts_as_busy():
    recent = ready("a", last_used=NOW + 1, recent_until=NOW + 3, load_time=2)
    models = [recent, wanted("x")]
    assert acts(models) == []
    assert wake(models) == NOW + 3
    assert acts(models, now=NOW + 3) == ["STOP a"]
    # Its clients keep coming back: until the newcomer has been patient.
    models = [replace(recent, recent_until=NOW + 8.5), wanted("x")]
    assert acts(models, now=NOW + 7.9) == []
    assert acts(models, now=NOW + 8) == ["DRAIN a"]
    assert acts([draining("a", recent_until=NOW + 8.5), wanted("x")]) == ["STOP a"]


def test_one_that_is_idle_goes_before_one_that_was_used_a_moment_ago():
    recent = ready("a", recent_until=NOW + 3, last_used=NOW + 1)
    models = [recent, ready("b", last_used=NOW + 2), wanted("x")]
    assert acts(models, SchedulingLimits(max_loaded=2)) == ["STOP b"]


@pytest.mark.parametrize(("load", "kept"), [(0.2, 0.02), (2, 0.2), (60, 0.3), (None, 0.3)])
def test_who_comes_when_it_is_idle_may_be_its_own_client_and_does_not_wait_for_itself(load, kept):
    a = ready("a", last_used=NOW, recent_until=NOW + 5, load_time=load)
    assert wake([a, wanted("x")]) == pytest.approx(NOW + kept)
    assert acts([a, wanted("x")], now=NOW + kept + 0.001) == ["STOP a"]
    assert acts([a, wanted("x", since=NOW + 1)], now=NOW + 1) == ["STOP a"]
    # A client that hangs up and asks for the next model at once is heard of in this order or that.
    assert acts([a, wanted("x", since=NOW - 0.02)], now=NOW + 1) == ["STOP a"]
    assert acts([a, wanted("x", since=NOW - 0.2)], now=NOW + 1) == []


def test_the_least_recently_used_one_goes_first_whatever_its_load_took():
    slow = ready("slow", last_used=NOW - 0.1, recent_until=NOW + 5, load_time=60)
    quick = ready("quick", last_used=NOW, recent_until=NOW + 5, load_time=0.1)
    assert acts([slow, quick, wanted("x")], SchedulingLimits(max_loaded=2)) == ["STOP slow"]


def test_clients_that_have_met_are_still_two_when_one_asks_in_the_others_pause():
    a = ready("a", last_used=NOW, recent_until=NOW + 5, load_time=1, vied=NOW - 2)
    x = wanted("x", since=NOW + 1, load_time=1, vied=NOW - 2)
    assert acts([a, x], now=NOW + 1) == []
    assert acts([replace(a, vied=NOW - 60), x], now=NOW + 1) == ["STOP a"]
    assert acts([a, replace(x, vied=NOW - 60)], now=NOW + 1) == ["STOP a"]


def test_one_that_is_drained_stops_when_its_work_is_done():
    assert acts([draining("a", in_flight=1), wanted("x", 0)]) == []
    assert acts([draining("a"), wanted("x", 0)]) == ["STOP a"]
    assert acts([draining("a", waiting=2, oldest_wait=NOW), wanted("x", 0)]) == ["STOP a"]


def test_one_that_is_drained_takes_work_again_if_nobody_needs_its_place():
    assert acts([draining("a", in_flight=1)]) == ["RESUME a"]
    assert acts([draining("a"), wanted("x", blocked_until=NOW + 9)]) == ["RESUME a"]
    assert acts([draining("a"), wanted("x")], SchedulingLimits(max_loaded=2)) == [
        "START x",
        "RESUME a",
    ]


def test_only_as_many_are_drained_as_are_needed():
    models = [draining("a", in_flight=1), draining("b", in_flight=1), wanted("x", 0)]
    assert acts(models, SchedulingLimits(max_loaded=2)) == ["RESUME b"]


def test_idle_ones_stay_until_the_busy_ones_have_ended():
    models = [
        ready("idle", demand=need(5)),
        busy("b", demand=need(5)),
        wanted("x", 0, demand=need(10)),
    ]
    limits = SchedulingLimits(budget=10)
    assert acts(models, limits) == ["DRAIN b"]
    models[1] = draining("b", demand=need(5))
    assert sorted(acts(models, limits)) == ["STOP b", "STOP idle"]


def test_nothing_is_drained_in_vain():
    models = [
        ready("p", demand=need(8), pinned=True),
        busy("b", demand=need(2)),
        wanted("x", 0, demand=need(5)),
    ]
    assert acts(models, SchedulingLimits(budget=10)) == ["REFUSE x"]


def test_nothing_is_drained_for_one_whose_turn_has_not_come():
    """Beside "x", which comes first, there is no room for "y" whatever goes."""
    newcomers = [wanted("x", 0, demand=need(7)), wanted("y", 1, demand=need(5))]
    models = [busy("a", demand=need(5)), busy("b", demand=need(2)), *newcomers]
    assert acts(models, SchedulingLimits(budget=10)) == ["DRAIN a"]


# --- rules 5 and 6 -------------------------------------------------------------------------


def test_a_load_nobody_waits_for_makes_room():
    assert acts([starting("a"), wanted("x")]) == ["STOP a"]
    assert acts([starting("a", wanted=1, oldest_wait=1), wanted("x")]) == []
    assert acts([starting("a")]) == []


def test_a_place_an_older_one_waits_for_is_not_given_to_a_younger_one():
    limits = SchedulingLimits(budget=10)
    models = [
        busy("a", demand=need(6)),
        wanted("big", 1, demand=need(8)),
        wanted("small", 2, demand=need(2)),
    ]
    assert acts(models, limits, now=2) == []


def test_a_younger_one_has_what_the_older_one_leaves():
    limits = SchedulingLimits(budget=20)
    models = [
        busy("a", demand=need(13)),
        wanted("big", 1, demand=need(8)),
        wanted("small", 2, demand=need(1)),
    ]
    assert acts(models, limits, now=2) == []
    models = [
        stopping("a", demand=need(13)),
        wanted("big", 1, demand=need(8)),
        wanted("small", 2, demand=need(1)),
    ]
    assert acts(models, SchedulingLimits(budget=22), now=2) == ["START big", "START small"]


# --- rule 7, pinned models, unloading, idle time -------------------------------------------


def test_pinned_models_stay():
    assert acts([ready("p", pinned=True), wanted("x", 0)]) == ["REFUSE x"]
    models = [ready("p", pinned=True), ready("a", last_used=NOW), wanted("x", 0)]
    assert acts(models, SchedulingLimits(max_loaded=2)) == ["STOP a"]
    assert acts([ready("p", pinned=True, expires=1.0)]) == []


@pytest.mark.parametrize("p", [stopping("p", pinned=True), ready("p", pinned=True, unload=True)])
def test_one_that_leaves_is_not_pinned_any_more(p):
    assert "REFUSE x" not in acts([p, wanted("x", 0)])


def test_unloading_waits_for_what_runs():
    assert acts([draining("a", unload=True, in_flight=1)]) == []
    assert acts([draining("a", unload=True, pinned=True)]) == ["STOP a"]
    assert acts([starting("a", unload=True)]) == ["STOP a"]
    assert acts([stopping("a", unload=True)]) == []


def test_one_that_is_unloaded_while_requests_wait_comes_back_when_it_has_gone():
    a = draining("a", unload=True, waiting=1, oldest_wait=1)
    assert acts([a]) == ["STOP a"]
    assert acts([stopping("a", waiting=1, oldest_wait=1), wanted("b", 2)]) == []


def test_idle_models_expire():
    assert acts([ready("a", expires=NOW)]) == ["STOP a"]
    assert acts([ready("a", expires=NOW + 5)]) == []
    assert wake([ready("a", expires=NOW + 5), ready("b", expires=NOW + 4)]) == NOW + 4
    assert acts([busy("a", expires=NOW - 5)]) == []
    assert acts([starting("a", expires=NOW - 5)]) == []


def test_nothing_to_do():
    assert decide([], ONE, NOW) == Decision((), None)
    assert decide([ready("a"), ModelView("b")], ONE, NOW) == Decision((), None)


# --- any view ------------------------------------------------------------------------------

STATES: dict[str, dict[str, bool]] = {
    "absent": {},
    "starting": {"resident": True, "starting": True},
    "ready": {"resident": True, "ready": True},
    "draining": {"resident": True, "draining": True},
    "stopping": {"resident": True, "stopping": True},
}
times = st.integers(980, 1020).map(float)


@st.composite
def views(draw: st.DrawFn) -> list[ModelView]:
    models = []
    for name in draw(st.sets(st.sampled_from("abcdef"))):
        state = draw(st.sampled_from(sorted(STATES)))
        slots = draw(st.integers(1, 3))
        works = state in ("ready", "draining", "stopping")
        waiting, loaders = draw(st.integers(0, 2)), draw(st.integers(0, 1))
        models.append(
            ModelView(
                name,
                **STATES[state],
                blocked_until=draw(times) if state == "absent" else 0.0,
                in_flight=draw(st.integers(0, slots)) if works else 0,
                slots=slots,
                waiting=waiting,
                wanted=loaders,
                oldest_wait=draw(times) if waiting or loaders else None,
                demand=need(draw(st.integers(0, 6))),
                last_used=draw(times),
                recent_until=draw(times),
                vied=draw(times),
                ready_since=draw(times),
                load_time=draw(st.none() | st.floats(0, 30)),
                pinned=draw(st.booleans()),
                unload=draw(st.booleans()) if state != "absent" else False,
                expires=draw(st.none() | times),
            )
        )
    return models


limits_of_any_kind = st.builds(
    SchedulingLimits,
    max_loaded=st.none() | st.integers(1, 4),
    budget=st.none() | st.integers(1, 12),
    patience=st.sampled_from([0.0, 5.0]),
)


def fits(model: ModelView, beside: Sequence[ModelView], limits: SchedulingLimits) -> bool:
    if not beside:
        return True
    few = limits.max_loaded is None or len(beside) < limits.max_loaded
    small = limits.budget is None or sum(m.demand.size for m in [*beside, model]) <= limits.budget
    return few and small


def check(
    models: Sequence[ModelView], limits: SchedulingLimits, decision: Decision, now: float
) -> None:
    """What must hold of every decision, told without the policy's own words."""
    by_name = {m.name: m for m in models}
    there = [m for m in models if m.resident]
    assert len(set(decision.actions)) == len(decision.actions)
    started: list[ModelView] = []
    gone_from_line = {a.model for a in decision.actions if a.act in (Act.START, Act.REFUSE)}
    for action in decision.actions:
        model = by_name[action.model]
        match action.act:
            case Act.GRANT:
                assert model.ready
                assert model.waiting
                assert model.in_flight < model.slots
            case Act.LOADED:
                assert model.ready
                assert model.wanted
            case Act.START:
                assert not model.resident
                assert model.oldest_wait is not None
                assert model.blocked_until <= now
                assert fits(model, [*there, *started], limits)
                # Nobody older is left without a place by it.
                older = [
                    m
                    for m in models
                    if m.oldest_wait is not None
                    and m.oldest_wait < model.oldest_wait
                    and not m.resident
                    and m.blocked_until <= now
                    and m.name not in gone_from_line
                ]
                assert fits(model, [*there, *started, *older], limits)
                started.append(model)
            case Act.STOP:
                assert model.resident
                assert not model.stopping
                assert model.in_flight == 0
                assert model.unload or not model.pinned
            case Act.DRAIN:
                assert model.ready
                assert not model.pinned
                # For somebody who has let it have a turn.
                then = now - min(limits.patience, limits.shortest_turn) + 1e-6
                newcomers = [m for m in models if m.oldest_wait is not None and not m.resident]
                assert model.ready_since <= then
                assert any((m.oldest_wait or 0) <= then for m in newcomers)
            case Act.RESUME:
                assert model.draining
                assert not model.unload
            case Act.REFUSE:
                pinned = [m for m in there if m.pinned and not m.stopping and not m.unload]
                assert not fits(model, pinned, limits)


@given(views(), limits_of_any_kind)
@settings(max_examples=150, deadline=None)
def test_every_decision_keeps_the_rules(models, limits):
    check(models, limits, decide(models, limits, NOW), NOW)


def carried_out(model: ModelView, act: Act) -> ModelView:
    absent = {"resident": False, "starting": False, "ready": False, "draining": False}
    match act:
        case Act.GRANT:
            left = model.waiting - 1
            oldest = model.oldest_wait if left or model.wanted else None
            in_flight = model.in_flight + 1
            return replace(model, waiting=left, in_flight=in_flight, oldest_wait=oldest)
        case Act.LOADED:
            oldest = model.oldest_wait if model.waiting else None
            return replace(model, wanted=0, oldest_wait=oldest)
        case Act.START:
            return replace(model, resident=True, starting=True)
        case Act.STOP:
            return replace(model, **{**absent, "resident": True}, stopping=True)
        case Act.DRAIN:
            return replace(model, ready=False, draining=True)
        case Act.RESUME:
            return replace(model, ready=True, draining=False)
        case Act.REFUSE:
            return replace(model, waiting=0, wanted=0, oldest_wait=None)


def settle(models: list[ModelView], limits: SchedulingLimits, now: float) -> list[ModelView]:
    """Decide and act until there is nothing more to do, checking each step."""
    for _ in range(100):
        decision = decide(models, limits, now)
        check(models, limits, decision, now)
        if not decision.actions:
            assert decision.wake_at is None or decision.wake_at > now
            return models
        for action in decision.actions:
            models = [carried_out(m, action.act) if m.name == action.model else m for m in models]
    raise AssertionError("it never comes to rest")


@given(views(), limits_of_any_kind)
@settings(max_examples=150, deadline=None)
def test_deciding_comes_to_rest(models, limits):
    settle(models, limits, NOW)


# --- a world to decide about ---------------------------------------------------------------


@dataclass
class Model:
    """What the scheduler knows of a model, and its process."""

    name: str
    need: int
    slots: int
    state: str = "absent"
    pinned: bool = False
    unload: bool = False
    ttl: float | None = None
    in_flight: int = 0
    queue: deque[float] = field(default_factory=deque)  # since when each waits
    blocked_until: float = 0.0
    last_used: float = 0.0
    ready_since: float = 0.0
    linger: float = 0.0
    load_time: float | None = None

    def view(self) -> ModelView:
        ready = self.state == "ready"
        last_used = max(self.last_used, self.ready_since)
        return ModelView(
            self.name,
            resident=self.state != "absent",
            starting=self.state == "starting",
            ready=ready and not self.unload,
            draining=self.state == "draining" or (ready and self.unload),
            stopping=self.state == "stopping",
            in_flight=self.in_flight,
            slots=self.slots,
            waiting=len(self.queue),
            oldest_wait=self.queue[0] if self.queue else None,
            demand=need(self.need),
            pinned=self.pinned,
            unload=self.unload,
            blocked_until=self.blocked_until if self.state == "absent" else 0.0,
            last_used=last_used,
            recent_until=last_used + self.linger,
            ready_since=self.ready_since,
            load_time=self.load_time,
            expires=None if self.ttl is None else last_used + self.ttl,
        )


class World:
    """Models, a clock, and the policy in charge."""

    def __init__(self, models: Sequence[Model], limits: SchedulingLimits) -> None:
        self.models = {model.name: model for model in models}
        self.limits = limits
        self.now = 0.0
        self.starts = 0
        self.waits: list[float] = []
        self.refused = 0

    def pump(self) -> float | None:
        """Decide and act until there is nothing more to do; returns when to look again."""
        for _ in range(1000):
            views = [model.view() for model in self.models.values()]
            decision = decide(views, self.limits, self.now)
            check(views, self.limits, decision, self.now)
            if not decision.actions:
                return decision.wake_at
            for action in decision.actions:
                self.act(self.models[action.model], action.act)
        raise AssertionError("it never comes to rest")

    def act(self, model: Model, act: Act) -> None:
        match act:
            case Act.GRANT:
                self.waits.append(self.now - model.queue.popleft())
                model.in_flight += 1
            case Act.START:
                self.starts += 1
                model.state = "starting"
            case Act.STOP:
                model.state = "stopping"
            case Act.DRAIN:
                model.state = "draining"
            case Act.RESUME:
                model.state = "ready"
            case Act.REFUSE:
                self.refused += len(model.queue)
                model.queue.clear()

    def ask(self, model: Model) -> None:
        model.queue.append(self.now)

    def finish(self, model: Model) -> None:
        if model.in_flight:
            model.in_flight -= 1
            model.last_used = self.now

    def loaded(self, model: Model) -> None:
        if model.state == "starting":
            model.state = "ready"
            model.ready_since = self.now

    def stopped(self, model: Model) -> None:
        if model.state == "stopping":
            model.state, model.unload = "absent", False

    def dies(self, model: Model) -> None:
        """Of itself: those it answers lose their answer, those who wait for a load fail."""
        if model.state in ("starting", "ready", "draining"):
            if model.state == "starting":
                model.queue.clear()
            model.state, model.unload, model.in_flight = "absent", False, 0
            model.blocked_until = self.now + 7

    def waiting(self) -> int:
        return sum(len(model.queue) for model in self.models.values())

    def quiet(self) -> None:
        """Nobody asks any more: what is under way ends, and everyone is served or refused."""
        wake = self.pump()
        for _ in range(200):
            before = self.starts, self.waiting(), [m.state for m in self.models.values()]
            for model in self.models.values():
                self.loaded(model)
                self.stopped(model)
                while model.in_flight:
                    self.finish(model)
            wake = self.pump()
            after = self.starts, self.waiting(), [m.state for m in self.models.values()]
            if before == after:
                if wake is None:
                    break
                self.now = max(self.now, wake)
                wake = self.pump()
        assert self.waiting() == 0, "somebody waits for ever"
        assert not [m for m in self.models.values() if m.in_flight]
        assert not [m for m in self.models.values() if m.state in ("draining", "stopping")]


any_limits = st.builds(
    SchedulingLimits,
    max_loaded=st.none() | st.integers(1, 3),
    budget=st.none() | st.integers(1, 9),
    patience=st.sampled_from([0.0, 15.0]),
)


class AnyWorld(RuleBasedStateMachine):
    """Requests, hang-ups, loads, deaths and changes of mind in any order."""

    @initialize(
        limits=any_limits,
        needs=st.lists(st.integers(0, 5), min_size=3, max_size=3),
        slots=st.integers(1, 2),
        ttl=st.none() | st.just(10.0),
    )
    def begin(
        self, limits: SchedulingLimits, needs: list[int], slots: int, ttl: float | None
    ) -> None:
        models = [Model(n, need, slots) for n, need in zip("abc", needs, strict=True)]
        models[0].ttl = ttl
        self.world = World(models, limits)

    pick = st.sampled_from("abc")

    @rule(name=pick)
    def ask(self, name: str) -> None:
        self.world.ask(self.world.models[name])
        self.world.pump()

    @rule(name=pick, which=st.integers(0, 5))
    def hang_up(self, name: str, which: int) -> None:
        queue = self.world.models[name].queue
        if which < len(queue):
            del queue[which]
            self.world.pump()

    @rule(name=pick)
    def finish(self, name: str) -> None:
        self.world.finish(self.world.models[name])
        self.world.pump()

    @rule(name=pick)
    def loaded(self, name: str) -> None:
        self.world.loaded(self.world.models[name])
        self.world.pump()

    @rule(name=pick)
    def stopped(self, name: str) -> None:
        self.world.stopped(self.world.models[name])
        self.world.pump()

    @rule(name=pick)
    def dies(self, name: str) -> None:
        self.world.dies(self.world.models[name])
        self.world.pump()

    @rule(name=pick)
    def unload(self, name: str) -> None:
        model = self.world.models[name]
        if model.state != "absent":
            if model.state == "starting":
                model.queue.clear()
            model.unload = True
            self.world.pump()

    @rule(name=pick, pinned=st.booleans())
    def pin(self, name: str, pinned: bool) -> None:
        self.world.models[name].pinned = pinned
        self.world.pump()

    @rule(limits=any_limits)
    def change_limits(self, limits: SchedulingLimits) -> None:
        self.world.limits = limits
        self.world.pump()

    @rule(seconds=st.sampled_from([1.0, 6.0, 16.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds
        self.world.pump()

    @invariant()
    def no_slot_is_idle_while_somebody_waits_for_it(self) -> None:
        for model in self.world.models.values() if hasattr(self, "world") else ():
            assert 0 <= model.in_flight <= model.slots
            if model.state == "ready" and not model.unload and model.queue:
                assert model.in_flight == model.slots

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.quiet()


AnyWorld.TestCase.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestAnyWorld = AnyWorld.TestCase


def run(world: World, seconds: int, clients: dict[str, int], load: int) -> None:
    """Each of ``clients`` asks again as soon as it has its answer, which takes a second."""
    loading: dict[str, int] = {}
    for model in world.models.values():
        for _ in range(clients[model.name]):
            world.ask(model)
    for _ in range(seconds):
        world.pump()
        world.now += 1
        for model in world.models.values():
            if model.state == "starting":
                loading[model.name] = loading.get(model.name, 0) + 1
                if loading[model.name] >= load:
                    loading[model.name] = 0
                    world.loaded(model)
            world.stopped(model)
            for _ in range(model.in_flight):
                world.finish(model)
                world.ask(model)


def simulate(
    world: World,
    seconds: float,
    clients: Sequence[tuple[str, float, float]],
    loads: dict[str, float],
) -> None:
    """Clients that ask for a model, are answered for a while, think, and ask again.

    ``clients``: (model, seconds an answer takes, seconds until the next question).
    """
    events: list[tuple[float, int, Callable[[], None]]] = []
    number = itertools.count()
    states = dict.fromkeys(world.models, "absent")
    waiting: dict[str, deque[int]] = {name: deque() for name in world.models}
    granted = dict.fromkeys(world.models, 0)

    def at(delay: float, what: Callable[[], None]) -> None:
        heapq.heappush(events, (world.now + delay, next(number), what))

    def ask(client: int) -> None:
        name = clients[client][0]
        waiting[name].append(client)
        world.ask(world.models[name])

    def finish(client: int) -> None:
        name, _, thinks = clients[client]
        granted[name] -= 1
        world.finish(world.models[name])
        at(thinks, lambda: ask(client))

    def loaded(model: Model) -> None:
        model.load_time = loads[model.name]
        world.loaded(model)

    for client in range(len(clients)):
        at(client / 100, partial(ask, client))
    while world.now < seconds:
        wake = world.pump()
        for name, model in world.models.items():
            while granted[name] < model.in_flight:
                client = waiting[name].popleft()
                granted[name] += 1
                at(clients[client][1], partial(finish, client))
            if model.state != states[name]:
                states[name] = model.state
                if model.state == "starting":
                    at(loads[name], partial(loaded, model))
                elif model.state == "stopping":
                    at(0.2, partial(world.stopped, model))
        soonest = events[0][0] if events else seconds
        if wake is not None and wake < soonest:
            world.now = wake
            continue
        world.now, _, happens = heapq.heappop(events)
        happens()


def test_two_clients_in_turn_are_served_in_batches():
    """Each asks, reads for half a second and asks again: today's 15 loads for 15 requests."""
    models = [Model("a", 0, 1, linger=1), Model("b", 0, 1, linger=1)]
    world = World(models, SchedulingLimits(max_loaded=1))
    simulate(world, 120, [("a", 1, 0.5), ("b", 1, 0.5)], {"a": 2, "b": 2})
    assert world.starts <= 8  # a turn of 16 s, and 2 s to load
    assert len(world.waits) > 50


@pytest.mark.parametrize(("load", "turn"), [(0.1, 2), (1, 8), (5, 40), (60, 60)])
def test_batches_grow_with_the_time_a_load_takes(load, turn):
    models = [Model(name, 0, 1, linger=1) for name in "ab"]
    world = World(models, SchedulingLimits(max_loaded=1))
    simulate(world, 1200, [("a", 0.5, 0.1), ("b", 0.5, 0.1)], {"a": load, "b": load})
    swap = load + 0.2 + 0.5  # the last answer, and the end of the process
    assert world.starts == pytest.approx(1200 / (turn + swap), rel=0.2)
    assert max(world.waits) <= turn + 2 * swap + 1


seconds_each = st.sampled_from([0.5, 2.0, 6.0, 20.0])


@given(
    loads=st.lists(st.sampled_from([0.2, 3.0, 15.0, 40.0]), min_size=2, max_size=5),
    clients=st.lists(
        st.tuples(st.integers(0, 4), seconds_each, seconds_each), min_size=1, max_size=8
    ),
    places=st.integers(1, 2),
)
@settings(max_examples=30, deadline=None)
def test_nobody_waits_beyond_the_bound(loads, clients, places):
    """Whatever loads take and however many ask: the turns before one's own are bounded."""
    names = "abcde"[: len(loads)]
    limits = SchedulingLimits(max_loaded=places)
    models = [Model(name, 0, 1, linger=5) for name in names]
    world = World(models, limits)
    asking = [(names[model % len(names)], answer, thinks) for model, answer, thinks in clients]
    simulate(world, 500, asking, dict(zip(names, loads, strict=True)))
    longest_answer = max(answer for _, answer, _ in asking)
    in_line = len(asking) * longest_answer  # behind others at the same model, with one slot
    swap = max(loads) + 0.2 + limits.first_turn + longest_answer
    bound = limits.longest_wait + len(names) * swap + in_line
    since = [world.now - model.queue[0] for model in world.models.values() if model.queue]
    assert max([*world.waits, *since]) <= bound


@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 2), st.sampled_from([0.1, 1.0, 7.0]), st.sampled_from([0, 0.4, 9])
        ),
        min_size=2,
        max_size=12,
    ),
    load=st.sampled_from([0.2, 3.0, 40.0]),
)
def test_a_single_client_waits_for_loads_and_for_no_turns(steps, load):
    """Whichever models it asks for, one after the other, with room for one."""
    limits = SchedulingLimits(max_loaded=1)
    world = World([Model(name, 0, 1, linger=5) for name in "abc"], limits)
    for number, answer, thinks in steps:
        model = world.models["abc"[number]]
        asked = world.now
        world.ask(model)
        wake = world.pump()
        while not model.in_flight:
            leaving = [m for m in world.models.values() if m.state == "stopping"]
            if model.state == "starting":
                world.now += load
                model.load_time = load
                world.loaded(model)
            elif leaving:
                world.now += 0.2
                world.stopped(leaving[0])
            else:
                assert wake is not None
                world.now = max(world.now, wake)
            wake = world.pump()
        assert world.now - asked <= load + 0.2 + limits.grace + 0.01
        world.now += answer
        world.finish(model)
        world.now += thinks


def test_models_in_turn_are_served_in_batches():
    world = World([Model("a", 0, 1), Model("b", 0, 1)], SchedulingLimits(max_loaded=1, patience=15))
    run(world, 600, {"a": 3, "b": 3}, load=3)
    assert 20 < world.starts < 50  # a newcomer is patient for 15 s, and a load takes 3 s
    served = len(world.waits)
    assert served > 0.7 * 600  # loads are most of the rest
    assert max(world.waits) < 45


def test_nobody_starves_beside_a_crowd():
    models = [Model("a", 0, 2), Model("b", 0, 2), Model("c", 0, 2)]
    world = World(models, SchedulingLimits(max_loaded=2, patience=15))
    run(world, 600, {"a": 20, "b": 20, "c": 1}, load=3)
    assert max(world.waits) < 100
    assert len(world.waits) > 600


# --- rule 8: what other programs leave ----------------------------------------------------------


def seen(**cards: tuple[int, int]) -> Memory:
    """The memory as a look that has just been made found it: name -> (size, left)."""
    return Memory(tuple(Card(n, size, left) for n, (size, left) in cards.items()), seen=NOW)


def decided(models: Sequence[ModelView], memory: Memory, now: float = NOW) -> list[str]:
    decision = decide(models, SchedulingLimits(), now, memory)
    return [f"{a.act.name} {a.model}" for a in decision.actions]


def test_nothing_starts_or_goes_before_the_memory_was_looked_at():
    idle = ready("a", demand=need(10), on=(("G", 10),))
    models = [idle, wanted("x", demand=need(15)), wanted("y", demand=need(1))]
    old = replace(seen(G=(20, 20)), look=Look.STALE)
    assert decided(models, old) == ["LOOK x"]
    assert decided(models, replace(old, look=Look.UNDER_WAY)) == []
    assert decided(models, seen(G=(20, 20))) == ["STOP a"]
    # One that was made before it came doesn't count.
    assert decided(models, replace(seen(G=(20, 20)), seen=NOW - 1)) == ["LOOK x"]


def test_a_drain_is_not_called_off_while_the_memory_is_looked_at():
    models = [draining("a", in_flight=1, demand=need(10), on=(("G", 10),)), wanted("x", 0)]
    models[1] = replace(models[1], demand=need(15))
    assert decided(models, replace(seen(G=(20, 20)), look=Look.UNDER_WAY)) == []
    assert decided([models[0]], seen(G=(20, 20))) == ["RESUME a"]


def test_nobody_goes_where_that_is_not_enough():
    idle = ready("a", demand=need(5), on=(("G", 5),))
    newcomer = wanted("x", demand=need(15))
    decision = decide([idle, newcomer], SchedulingLimits(), NOW, seen(G=(20, 7)))
    assert decision == Decision((), NOW + 2, frozenset("x"))
    assert decided([idle, newcomer], seen(G=(20, 15))) == ["STOP a"]


def test_memory_of_others_is_waited_for_and_then_given_up():
    newcomer = wanted("x", since=NOW - 25, demand=need(15), short_since=NOW - 20)
    assert decided([newcomer], seen(G=(20, 2))) == []
    late = replace(seen(G=(20, 2)), seen=NOW + 10)
    assert decided([newcomer], late, NOW + 10) == ["GIVE_UP x"]
    assert decided([newcomer], replace(late, cards=seen(G=(20, 15)).cards), NOW + 10) == ["START x"]


def test_who_waits_for_others_keeps_no_place_from_those_who_fit():
    models = [wanted("big", 1, demand=need(15)), wanted("small", 2, demand=need(1))]
    assert decided(models, seen(G=(20, 2))) == ["START small"]


def test_only_models_of_the_card_that_is_needed_go():
    models = [
        ready("a", demand=need(10), on=(("G", 10),), last_used=1),
        ready("b", demand=need(15), on=(("H", 15),), last_used=2),
        wanted("x", demand=need(18)),
    ]
    memory = seen(G=(24, 12), H=(24, 24))
    assert decided(models, memory) == ["STOP b"]
    busy = [models[0], replace(models[1], in_flight=1), replace(models[2], oldest_wait=NOW - 20)]
    assert decided(busy, memory) == ["DRAIN b"]


def test_where_it_starts_is_part_of_the_decision():
    (action,) = decide(
        [wanted("x", demand=need(9))], SchedulingLimits(), NOW, seen(G=(9, 8), H=(24, 24))
    ).actions
    assert action == Action(Act.START, "x", (("H", 9),))


def test_a_place_an_older_one_waits_for_is_kept_on_its_card():
    models = [
        replace(busy("a"), demand=need(20), on=(("G", 20),)),
        wanted("big", NOW - 1, demand=need(22)),
        wanted("small", NOW, demand=need(4)),
    ]
    assert decided(models, seen(G=(24, 24), H=(8, 8))) == ["START small"]  # on the other
    assert decided(models, seen(G=(24, 24))) == []


@given(
    views(),
    limits_of_any_kind,
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=3),
    st.data(),
)
@settings(max_examples=150, deadline=None)
def test_no_card_is_ever_overdrawn(models, limits, sizes, data):
    cards = tuple(Card(f"G{i}", max(pair), min(pair)) for i, pair in enumerate(sizes))
    names = st.sampled_from([card.name for card in cards])
    placed = [
        replace(m, on=((data.draw(names), m.demand.size),)) if m.resident else m for m in models
    ]
    memory = Memory(cards, seen=math.inf)
    decision = decide(placed, limits, NOW, memory)
    by_name = {m.name: m for m in placed}
    taken: dict[str, int] = {}
    for name, size in itertools.chain(*(m.on for m in placed if m.resident)):
        taken[name] = taken.get(name, 0) + size
    helped = [m for m in placed if m.oldest_wait is not None and not m.resident]
    for action in decision.actions:
        model = by_name[action.model]
        if action.act is Act.START:
            for name, size in action.on:
                left = next(card.left for card in cards if card.name == name)
                assert not taken.get(name) or taken[name] + size <= left
                taken[name] = taken.get(name, 0) + size
        if action.act in (Act.STOP, Act.DRAIN) and not model.unload and model.expires is None:
            assert helped  # nobody goes for nobody
            assert not {m.name for m in helped} <= decision.short


# --- rule 9: remote models -----------------------------------------------------------------


def test_a_remote_model_starts_whatever_is_here():
    full = [ready("a", pinned=True, demand=need(10)), ready("b", in_flight=1, last_used=1)]
    away = wanted("x", remote=True)
    assert acts([*full, away], SchedulingLimits(max_loaded=1, budget=10)) == ["START x"]
    assert acts([ready("big", alone=True, in_flight=1), away]) == ["START x"]


def test_a_remote_model_takes_no_place_and_makes_none():
    away = ready("x", remote=True, last_used=0)
    assert acts(
        [away, wanted("a", demand=need(10))], SchedulingLimits(max_loaded=1, budget=10)
    ) == ["START a"]
    assert acts([away, starting("b", wanted=1), wanted("a")]) == []
    assert acts([away, ready("b", last_used=5), wanted("a")]) == ["STOP b"]
    assert acts([replace(away, pinned=True), wanted("a", demand=need(99), alone=True)]) == [
        "START a"
    ]


def test_a_remote_model_that_goes_is_no_place_either():
    leaving = stopping("x", remote=True, waiting=1, oldest_wait=1)
    assert acts([leaving, wanted("a", 2)]) == ["START a"]
    assert acts([ready("x", remote=True, unload=True)]) == ["STOP x"]
    assert acts([ready("x", remote=True, expires=NOW - 1)]) == ["STOP x"]
