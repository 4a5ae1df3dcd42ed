"""The policy over time: random sequences of events, and crowds of clients."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.backends.decision import SchedulingLimits
from tests.simulated_models import Model, World, run, simulate

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


def test_two_clients_in_turn_are_served_in_batches() -> None:
    """Each asks, reads for half a second and asks again: today's 15 loads for 15 requests."""
    models = [Model("a", 0, 1, linger=1), Model("b", 0, 1, linger=1)]
    world = World(models, SchedulingLimits(max_loaded=1))
    simulate(world, 120, [("a", 1, 0.5), ("b", 1, 0.5)], {"a": 2, "b": 2})
    assert world.starts <= 8  # a turn of 16 s, and 2 s to load
    assert len(world.waits) > 50


@pytest.mark.parametrize(("load", "turn"), [(0.1, 2), (1, 8), (5, 40), (60, 60)])
def test_batches_grow_with_the_time_a_load_takes(load: float | int, turn: int) -> None:
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
def test_nobody_waits_beyond_the_bound(loads: Any, clients: Any, places: Any) -> None:
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
def test_a_single_client_waits_for_loads_and_for_no_turns(steps: Any, load: Any) -> None:
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


def test_models_in_turn_are_served_in_batches() -> None:
    world = World([Model("a", 0, 1), Model("b", 0, 1)], SchedulingLimits(max_loaded=1, patience=15))
    run(world, 600, {"a": 3, "b": 3}, load=3)
    assert 20 < world.starts < 50  # a newcomer is patient for 15 s, and a load takes 3 s
    served = len(world.waits)
    assert served > 0.7 * 600  # loads are most of the rest
    assert max(world.waits) < 45


def test_nobody_starves_beside_a_crowd() -> None:
    models = [Model("a", 0, 2), Model("b", 0, 2), Model("c", 0, 2)]
    world = World(models, SchedulingLimits(max_loaded=2, patience=15))
    run(world, 600, {"a": 20, "b": 20, "c": 1}, load=3)
    assert max(world.waits) < 100
    assert len(world.waits) > 600
