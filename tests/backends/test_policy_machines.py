"""What the policy does where there are other machines: each rule by example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gateway.backends.decision import Act, Action, ModelView, SchedulingLimits
from gateway.backends.placement import Demand, Look, Memory, Placement
from gateway.backends.policy import decide
from tests.machine_views import anywhere, cluster, machine
from tests.model_views import NOW, busy, draining, ready, starting, stopping, wanted

PACK = SchedulingLimits()
SPREAD = SchedulingLimits(placement="spread")


def at(device: str, size: int) -> dict[str, Any]:
    """The fields of a model that is there."""
    return {"on": ((device, size),), "demand": Demand(size, size)}


def acts(
    models: Sequence[ModelView],
    memory: Memory,
    limits: SchedulingLimits = PACK,
    now: float = NOW,
) -> list[str]:
    """What is done, and where that is a start, on which devices."""
    return [
        " ".join([a.act.name, a.model, *(name for name, _ in a.on)])
        for a in decide(models, limits, now, memory).actions
    ]


def start(memory: Memory, demand: Demand, limits: SchedulingLimits = PACK) -> Action:
    (action,) = decide([wanted("x", demand=demand)], limits, NOW, memory).actions
    return action


# --- which machine -------------------------------------------------------------------------------


def test_pack_prefers_this_machine_and_then_what_is_left_with_the_least() -> None:
    memory = cluster(machine(G=10), attic=machine(G=24), cellar=machine(G=12))
    demand = anywhere(8, "attic", "cellar")
    assert acts([wanted("x", demand=demand)], memory) == ["START x G"]
    full = [ready("a", pinned=True, **at("G", 5)), wanted("x", demand=demand)]
    assert acts(full, memory) == ["START x cellar/G"]
    assert acts([*full, ready("b", **at("cellar/G", 5))], memory) == ["START x attic/G"]


def test_spread_prefers_the_fewest_models_and_then_the_most_room() -> None:
    memory = cluster(machine(G=24), attic=machine(G=24), cellar=machine(G=12))
    newcomer = wanted("x", demand=anywhere(8, "attic", "cellar"))
    one = [ready("a", **at("G", 1)), newcomer]
    assert acts(one, memory, SPREAD) == ["START x attic/G"]
    two = [ready("b", **at("attic/G", 1)), *one]
    assert acts(two, memory, SPREAD) == ["START x cellar/G"]
    # Where it does not fit it is not put, however few there are.
    assert acts([ready("c", **at("cellar/G", 5)), *two], memory, SPREAD) == ["START x G"]


def test_a_model_goes_only_where_it_may_run() -> None:
    memory = cluster(machine(G=24), attic=machine(G=24), cellar=machine(G=12))
    assert start(memory, anywhere(8, "cellar", here=False)).on == (("cellar/G", 8),)
    assert start(memory, anywhere(8)).on == (("G", 8),)
    full = [ready("a", pinned=True, **at("G", 20))]
    assert acts([*full, wanted("x", demand=anywhere(8))], memory) == ["REFUSE x"]


def test_it_needs_on_each_node_what_it_needs_there() -> None:
    memory = cluster(machine(G=2), attic=machine(G=24), cellar=machine(RAM=12))
    demand = Demand(9, 9, elsewhere={"attic": Demand(9, 9, 0), "cellar": Demand(5, 5)}, here=False)
    assert start(memory, demand).on == (("cellar/RAM", 5),)
    split = Demand(9, 9, here=False, elsewhere={"attic": Demand(20, 20, devices=("attic/H",))})
    two = cluster(machine(G=2), attic=machine(G=24, H=24))
    assert start(two, split).on == (("attic/H", 20),)


def test_no_placement_spans_machines() -> None:
    memory = cluster(machine(G=24, H=24), attic=machine(G=24, H=24))
    on = start(memory, anywhere(40, "attic")).on
    assert {name for name, _ in on} == {"G", "H"}
    models = [ready("a", pinned=True, **at("G", 1)), wanted("x", demand=anywhere(60, "attic"))]
    (action,) = decide(models, PACK, NOW, memory).actions
    assert {name for name, _ in action.on} == {"attic/G", "attic/H"}  # too big for either


def test_a_placement_says_which_node_it_means_even_where_it_takes_nothing() -> None:
    memory = cluster(machine(G=24), attic=machine(G=24), cellar=Memory())
    assert start(memory, anywhere(0, "attic", here=False)).on == (("attic/RAM", 0),)
    assert start(memory, anywhere(5, "cellar", here=False)).on == (("cellar/RAM", 5),)


def test_it_only_tries_to_fit_where_no_other_machine_could_hold_it() -> None:
    memory = cluster(machine(G=9), attic=machine(G=24))
    estimate = anywhere(10, "attic", least=8)
    assert start(memory, estimate).on == (("attic/G", 10),)
    assert start(memory, anywhere(10, least=8)).on == (("G", 10),)
    # Room is made where it fits, though it could try here at once.
    idle = [ready("a", **at("attic/G", 20)), wanted("x", demand=estimate)]
    assert acts(idle, memory) == ["STOP a"]
    taken = [ready("a", pinned=True, **at("attic/G", 20)), wanted("x", demand=estimate)]
    assert acts(taken, memory) == ["START x G"]
    # Of several where it could only try, the one that lacks the least.
    small = cluster(machine(G=10), attic=machine(G=16))
    assert start(small, anywhere(20, "attic", least=9)).on == (("attic/G", 20),)


# --- making room ---------------------------------------------------------------------------------


def test_nobody_goes_where_another_machine_has_room() -> None:
    memory = cluster(machine(G=10), attic=machine(G=10))
    models = [ready("a", **at("G", 8)), wanted("x", demand=anywhere(8, "attic"))]
    assert acts(models, memory) == ["START x attic/G"]


def test_nobody_goes_from_a_machine_that_could_not_take_the_newcomer() -> None:
    memory = cluster(machine(G=10), attic=machine(G=24))
    models = [
        ready("old", last_used=1, **at("attic/G", 20)),
        ready("new", last_used=2, **at("G", 8)),
        wanted("x", demand=anywhere(8)),
    ]
    assert acts(models, memory) == ["STOP new"]
    big = [*models[:2], wanted("x", demand=anywhere(20, "attic"))]
    assert acts(big, memory) == ["STOP old"]


def test_those_who_go_are_of_one_machine() -> None:
    memory = cluster(machine(G=10), attic=machine(G=10))
    models = [
        ready("a", last_used=1, **at("G", 5)),
        ready("b", last_used=4, **at("G", 5)),
        ready("c", last_used=2, **at("attic/G", 5)),
        ready("d", last_used=3, **at("attic/G", 5)),
        wanted("x", demand=anywhere(10, "attic")),
    ]
    assert acts(models, memory) == ["STOP c", "STOP d"]


def test_the_least_recently_used_goes_then_the_fewest_then_from_here() -> None:
    memory = cluster(machine(G=10), attic=machine(G=10))
    newcomer = wanted("x", demand=anywhere(10, "attic"))
    models = [ready("a", last_used=2, **at("G", 8)), ready("b", last_used=1, **at("attic/G", 8))]
    assert acts([*models, newcomer], memory) == ["STOP b"]
    models = [
        ready("a", last_used=1, **at("G", 4)),
        ready("b", last_used=1, **at("G", 4)),
        ready("c", last_used=1, **at("attic/G", 8)),
    ]
    assert acts([*models, newcomer], memory) == ["STOP c"]
    models = [ready("a", last_used=1, **at("G", 8)), ready("b", last_used=1, **at("attic/G", 8))]
    assert acts([*models, newcomer], memory) == ["STOP a"]


def test_idle_ones_go_before_busy_ones_of_another_machine() -> None:
    memory = cluster(machine(G=10), attic=machine(G=10))
    models = [
        busy("a", last_used=1, **at("G", 8)),
        ready("b", last_used=NOW - 10, **at("attic/G", 8)),
        wanted("x", 0, demand=anywhere(10, "attic")),
    ]
    assert acts(models, memory) == ["STOP b"]


def test_a_drain_goes_on_until_somebody_is_idle_elsewhere() -> None:
    memory = cluster(machine(G=10), attic=machine(G=10))
    newcomer = wanted("x", NOW - 20, demand=anywhere(10, "attic"))
    late = busy("a", ready_since=NOW - 1, **at("G", 8))
    models = [late, busy("b", ready_since=NOW - 300, **at("attic/G", 8)), newcomer]
    assert acts(models, memory) == ["DRAIN b"]
    models[1] = draining("b", in_flight=1, ready_since=NOW - 300, **at("attic/G", 8))
    # The turn of the other one is over as well, and yet only one of them has to go.
    models[0] = busy("a", ready_since=NOW - 900, **at("G", 8))
    assert acts(models, memory) == []
    models[0] = ready("a", last_used=1, **at("G", 8))
    assert acts(models, memory) == ["STOP a", "RESUME b"]


def test_none_goes_while_enough_is_going_on_one_machine() -> None:
    memory = cluster(machine(G=10), attic=machine(G=10))
    models = [
        ready("a", **at("G", 8)),
        stopping("b", **at("attic/G", 8)),
        wanted("x", demand=anywhere(10, "attic")),
    ]
    assert acts(models, memory) == []


def test_a_place_an_older_one_waits_for_is_kept_on_its_machine() -> None:
    memory = cluster(machine(G=10), attic=machine(G=10))
    models = [
        busy("a", ready_since=NOW, **at("attic/G", 8)),
        wanted("big", NOW - 1, demand=anywhere(10, "attic", here=False)),
        wanted("small", NOW, demand=anywhere(2, "attic")),
    ]
    assert acts(models, memory) == ["START small G"]
    models[2] = wanted("small", NOW, demand=anywhere(2, "attic", here=False))
    assert acts(models, memory) == []


# --- what is counted -----------------------------------------------------------------------------


def test_the_budget_is_of_this_machine() -> None:
    memory = cluster(machine(G=24), attic=machine(G=24))
    limits = SchedulingLimits(budget=10)
    far = ready("far", on=(("attic/G", 20),), demand=Demand(20, 20))
    assert acts([far, wanted("x", demand=anywhere(8))], memory, limits) == ["START x G"]
    near = ready("near", pinned=True, **at("G", 8))
    assert acts([near, wanted("x", demand=anywhere(8))], memory, limits) == ["REFUSE x"]
    assert acts([near, wanted("x", demand=anywhere(8, "attic"))], memory, limits) == [
        "START x attic/G"
    ]


def test_the_most_that_may_be_loaded_are_those_of_all_machines() -> None:
    memory = cluster(machine(G=24), attic=machine(G=24))
    limits = SchedulingLimits(max_loaded=2)
    models = [
        ready("a", last_used=1, **at("attic/G", 1)),
        ready("b", last_used=2, **at("G", 1)),
        wanted("x", demand=anywhere(8)),
    ]
    assert acts(models, memory, limits) == ["STOP a"]
    # Where memory is short, too, its going is enough.
    models[1] = ready("b", last_used=2, **at("G", 20))
    assert acts(models, memory, limits) == ["STOP b"]


def test_alone_means_without_others_on_the_same_machine() -> None:
    memory = cluster(machine(G=24), attic=machine(G=24))
    models = [
        ready("a", pinned=False, last_used=1, **at("G", 1)),
        wanted("x", demand=anywhere(8, "attic"), alone=True),
    ]
    assert acts(models, memory) == ["START x attic/G"]
    models.append(ready("b", last_used=0, **at("attic/G", 1)))
    assert acts(models, memory) == ["STOP b"]


def test_what_runs_on_a_node_that_takes_nothing_is_in_nobodys_way() -> None:
    """A node that is drained or down is not among ``nodes``."""
    memory = cluster(machine(G=10), attic=machine(G=10))
    lost = [
        ready("a", pinned=True, **at("cellar/G", 9)),
        stopping("b", waiting=1, oldest_wait=1, **at("cellar/G", 9)),
        draining("c", unload=True, in_flight=1, last_used=1, **at("cellar/G", 9)),
    ]
    limits = SchedulingLimits(max_loaded=1)
    newcomer = wanted("x", demand=anywhere(9, "attic", "cellar"))
    assert acts([*lost, newcomer], memory, limits) == ["START x G"]
    models = [*lost, ready("d", **at("G", 9)), ready("e", last_used=2, **at("attic/G", 9))]
    assert acts([*models, newcomer], memory) == ["STOP d"]
    alone = replace(memory, nodes={})
    assert acts([*lost, newcomer], alone, limits) == ["START x G"]


def test_nobody_on_a_node_that_is_away_is_drained_while_a_load_has_to_end() -> None:
    models = [
        starting("a", wanted=1, oldest_wait=NOW, **at("G", 8)),
        busy("far", **at("attic/G", 8)),
        wanted("x", 0, demand=anywhere(8, "attic")),
    ]
    assert acts(models, machine(G=10)) == []


# --- looks, and memory that others hold ----------------------------------------------------------


def test_who_may_only_run_on_nodes_waits_for_no_look() -> None:
    memory = replace(cluster(machine(G=10), attic=machine(G=10)), look=Look.STALE)
    far = wanted("far", demand=anywhere(8, "attic", here=False))
    assert acts([far], memory) == ["START far attic/G"]
    both = wanted("both", NOW - 1, demand=anywhere(8, "attic"))
    near = wanted("near", NOW - 1, demand=anywhere(8))
    assert acts([near, far], memory) == ["LOOK near", "START far attic/G"]
    # But it does not overtake who may go there.
    assert acts([both, far], memory) == ["LOOK both"]
    assert acts([both, far], replace(memory, look=Look.UNDER_WAY)) == []
    assert acts([near, far], memory, SchedulingLimits(max_loaded=1)) == ["LOOK near"]


def test_one_whose_machines_are_all_away_waits_for_them() -> None:
    memory = replace(cluster(machine(G=10), attic=machine(G=10)), look=Look.STALE)
    x = wanted("x", NOW - 40, demand=anywhere(8, "cellar", here=False))
    decision = decide([x], PACK, NOW, memory)
    assert (decision.actions, decision.wake_at) == ((), NOW + 30)
    assert decision.short == {"x"}
    waited = replace(x, short_since=NOW - 30)
    assert acts([waited], memory) == ["GIVE_UP x"]
    there = cluster(machine(G=10), cellar=machine(G=10))
    assert acts([waited], there) == ["START x cellar/G"]


def test_what_other_programs_hold_on_every_machine_is_waited_for() -> None:
    memory = cluster(machine(G=(10, 1)), attic=machine(G=(10, 2)))
    scant = Demand(8, 8, scant=2)
    x = wanted("x", demand=replace(scant, elsewhere={"attic": scant}))
    decision = decide([x], PACK, NOW, memory)
    assert (decision.actions, decision.short) == ((), {"x"})
    assert acts([replace(x, short_since=NOW - 30)], memory) == ["START x attic/G"]
    none = anywhere(8, "attic")
    assert acts([replace(x, short_since=NOW - 30, demand=none)], memory) == ["GIVE_UP x"]


# --- replicas ------------------------------------------------------------------------------------


def copies(
    number: int, memory: Memory, demand: Demand, *others: ModelView, **limits: Any
) -> tuple[Placement, ...]:
    """Where the copies of a model start, one after the other, as long as there is room."""
    x = wanted("x", demand=demand)
    placed: list[Placement] = []
    while len(placed) < number:
        decision = decide([*others, x], SchedulingLimits(**limits), NOW, memory)
        found = [action for action in decision.actions if action.model == "x"]
        if not found:
            break
        (action,) = found
        assert action.act is (Act.COPY if placed else Act.START)
        placed.append(action.on)
        held = sum(size for on in placed for _, size in on)
        x = ready("x", on=sum(placed, ()), demand=Demand(held, held), copy=demand)
    return tuple(placed)


def test_copies_go_to_other_machines_and_then_to_other_devices() -> None:
    memory = cluster(machine(G=24, H=24), attic=machine(G=24), cellar=machine(G=10))
    demand = anywhere(10, "attic", "cellar")
    order = [[name for name, _ in on] for on in copies(5, memory, demand)]
    assert order == [["G"], ["cellar/G"], ["attic/G"], ["H"], ["G"]]
    assert copies(1, memory, demand) == ((("G", 10),),)
    spread = copies(3, memory, demand, placement="spread")
    assert [on[0][0] for on in spread] == ["G", "attic/G", "cellar/G"]


def test_as_many_copies_start_as_there_is_room_for_and_at_least_one() -> None:
    memory = cluster(machine(G=24), attic=machine(G=24))
    assert len(copies(9, memory, anywhere(10, "attic"))) == 4
    idle = [ready("a", **at("G", 20)), ready("b", **at("attic/G", 8))]
    # Nobody is unloaded for the second.
    assert copies(9, memory, anywhere(10, "attic"), *idle) == ((("attic/G", 10),),)
    idle = [ready("a", **at("G", 20)), ready("b", last_used=1, **at("attic/G", 20))]
    assert acts([*idle, wanted("x", demand=anywhere(10, "attic"))], memory) == ["STOP a"]


def test_a_copy_does_not_only_try_to_fit() -> None:
    memory = cluster(machine(G=9), attic=machine(G=9))
    assert len(copies(2, memory, anywhere(10, "attic", least=8))) == 1


def test_copies_come_after_all_who_wait() -> None:
    memory = cluster(machine(G=10), attic=machine(G=10))
    both = anywhere(10, "attic")
    x = ready("x", on=(("G", 10),), demand=both, copy=both)
    assert acts([x], memory) == ["COPY x attic/G"]
    assert acts([x, wanted("y", demand=both)], memory) == ["START y attic/G"]
    leaving = replace(x, unload=True, in_flight=1)
    assert acts([leaving], memory) == []


def test_copies_keep_the_budget_and_count_as_one_model() -> None:
    memory = machine(G=24, H=24)
    assert len(copies(4, memory, anywhere(10), budget=20)) == 2
    assert len(copies(4, memory, anywhere(10), max_loaded=1)) == 4


def test_there_are_no_copies_while_somebody_must_have_all_the_memory() -> None:
    memory = cluster(machine(G=24), attic=machine(G=24))
    both = anywhere(10, "attic")
    x = ready("x", on=(("G", 10),), demand=both, copy=both)
    assert acts([x, starting("y", alone=True, **at("attic/G", 4))], memory) == []
    assert acts([x, ready("y", **at("attic/G", 4))], memory) == ["COPY x attic/G"]


def test_copies_stay_on_the_devices_that_models_json_chooses() -> None:
    memory = machine(G=24, H=24, J=24)
    two = Demand(20, 20, devices=("G", "H"))
    assert copies(2, memory, two) == ((("G", 10), ("H", 10)), (("G", 10), ("H", 10)))
