"""The policy over time on several machines: crowds of clients, nodes that come and go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.backends.decision import Act, ModelView, SchedulingLimits
from gateway.backends.placement import Memory, Placement
from gateway.backends.policy import decide
from tests.machine_views import anywhere, check, cluster, machine
from tests.simulated_models import Model, World, simulate


class Machines(World):
    """Models on this machine and on nodes, as far as those are there."""

    def __init__(self, models: Any, limits: SchedulingLimits, memory: Memory, where: Any) -> None:
        super().__init__(models, limits)
        self.memory = replace(memory, seen=1e9)
        self.where = where  # the nodes where each model may run, and whether here
        self.on: dict[str, Placement] = {}
        self.away: set[str] = set()

    def view_of(self, model: Model) -> ModelView:
        nodes, here = self.where[model.name]
        view = replace(model.view(), demand=anywhere(model.need, *nodes, here=here))
        return replace(view, on=self.on.get(model.name, ()) if view.resident else ())

    def pump(self) -> float | None:
        for _ in range(1000):
            views = [self.view_of(model) for model in self.models.values()]
            nodes = {n: its for n, its in self.memory.nodes.items() if n not in self.away}
            memory = replace(self.memory, nodes=nodes)
            decision = decide(views, self.limits, self.now, memory)
            check(views, self.limits, memory, decision, self.now)
            if not decision.actions:
                return decision.wake_at
            for action in decision.actions:
                if action.act is Act.START:
                    self.on[action.model] = action.on
                self.act(self.models[action.model], action.act)
        raise AssertionError("it never comes to rest")

    def leaves(self, node: str) -> None:
        """It is drained: what runs there goes when its work is done."""
        self.away.add(node)
        for name, model in self.models.items():
            if model.state != "absent" and any(d.startswith(node) for d, _ in self.on[name]):
                model.unload = True


PLACES = [((), True), (("attic",), False), (("attic",), True), (("attic", "cellar"), True)]
each = st.sampled_from([0.5, 2.0, 6.0, 20.0])


@given(
    where=st.lists(st.sampled_from(PLACES), min_size=5, max_size=5),
    clients=st.lists(st.tuples(st.integers(0, 4), each, each), min_size=2, max_size=8),
    load=st.sampled_from([0.2, 3.0, 15.0]),
    placement=st.sampled_from(["pack", "spread"]),
)
@settings(max_examples=25, deadline=None)
def test_nobody_waits_beyond_the_bound(where: Any, clients: Any, load: Any, placement: Any) -> None:
    names = "abcde"
    limits = SchedulingLimits(placement=placement)
    memory = cluster(machine(G=10), attic=machine(G=10), cellar=machine(G=6))
    models = [Model(n, need, 1, linger=5) for n, need in zip(names, (9, 6, 5, 9, 3), strict=True)]
    world = Machines(models, limits, memory, dict(zip(names, where, strict=True)))
    asking = [(names[model], answer, thinks) for model, answer, thinks in clients]
    simulate(world, 300, asking, dict.fromkeys(names, load))
    longest_answer = max(answer for _, answer, _ in asking)
    in_line = len(asking) * longest_answer  # behind others at the same model, with one slot
    swap = load + 0.2 + limits.first_turn + longest_answer
    since = [world.now - model.queue[0] for model in world.models.values() if model.queue]
    assert max([*world.waits, *since]) <= limits.longest_wait + 5 * swap + in_line
    assert world.refused == 0


@given(
    steps=st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from(["ask", "go", "come", "end", "wait"])),
        max_size=40,
    )
)
@settings(max_examples=60, deadline=None)
def test_it_comes_to_rest_whatever_nodes_do(steps: Any) -> None:
    memory = cluster(machine(G=10), attic=machine(G=10), cellar=machine(G=10))
    models = [Model(name, need, 1) for name, need in zip("abcd", (9, 6, 5, 9), strict=True)]
    where = dict(zip("abcd", PLACES, strict=True))
    world = Machines(models, SchedulingLimits(), memory, where)
    for name, what in steps:
        model = world.models[name]
        match what:
            case "ask":
                world.ask(model)
            case "go":
                world.leaves("attic" if name in "ab" else "cellar")
            case "come":
                world.away.clear()
            case "end":
                world.finish(model)
                world.stopped(model)
                world.loaded(model)
            case "wait":
                world.now += 7
        world.pump()
    world.away.clear()
    world.quiet()
    assert world.refused == 0
