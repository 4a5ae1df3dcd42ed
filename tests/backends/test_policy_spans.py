"""What the policy does with models that may span machines: each rule by example."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.backends.decision import Action, ModelView, SchedulingLimits
from gateway.backends.placement import Demand, Memory, by_machine
from gateway.backends.policy import decide
from tests.backends.test_policy_machines import acts, at, start
from tests.machine_views import cluster, machine
from tests.model_views import NOW, busy, ready, wanted

THREE = cluster(machine(G=4), attic=machine(G=10), cellar=machine(G=10), barn=machine(G=6))


def spanning(size: int, *leads: str, machines: int = 2, here: bool = False) -> Demand:
    """What needs the same everywhere, and may lead on ``leads``, helped by all others."""
    one = Demand(size, size, most_helpers=machines - 1)
    nodes = ("attic", "cellar", "barn")
    elsewhere = {name: replace(one, helpers=tuple(n for n in nodes if n != name)) for name in leads}
    return replace(one, here=here, elsewhere=elsewhere, most_helpers=0)


def spread(memory: Memory, demand: Demand, *others: ModelView) -> dict[str, int]:
    """The bytes that a newcomer gets of each machine."""
    (action,) = decide(
        [*others, wanted("x", demand=demand)], SchedulingLimits(), NOW, memory
    ).actions
    assert isinstance(action, Action)
    return {name: sum(size for _, size in on) for name, on in by_machine(action.on).items()}


def test_it_spans_only_where_no_machine_could_hold_it() -> None:
    assert start(THREE, spanning(9, "attic")).on == (("attic/G", 9),)
    # Also where others have to go for that.
    full = [ready("a", **at("attic/G", 8)), ready("b", **at("cellar/G", 8))]
    newcomer = wanted("x", demand=spanning(9, "attic", "cellar"))
    assert acts([*full, newcomer], THREE) in (["STOP a"], ["STOP b"])


def test_it_is_divided_by_the_room_that_there_is() -> None:
    assert spread(THREE, spanning(15, "attic")) == {"attic": 7, "cellar": 7}
    small = [ready("a", pinned=True, **at("cellar/G", 6))]
    assert spread(THREE, spanning(12, "attic"), *small) == {"attic": 7, "barn": 4}


def test_the_machine_that_leads_comes_first() -> None:
    assert [name for name, _ in start(THREE, spanning(15, "cellar")).on] == ["cellar/G", "attic/G"]
    # One that has no room of its own leads all the same: it has the files.
    empty = cluster(machine(G=4), attic=machine(G=(10, 0)), cellar=machine(G=30))
    assert start(empty, spanning(15, "attic")).on == (("attic/RAM", 0), ("cellar/G", 15))


def test_no_more_machines_than_needed_or_allowed() -> None:
    assert spread(THREE, spanning(22, "attic", machines=3)).keys() == {"attic", "cellar", "barn"}
    assert spread(THREE, spanning(15, "attic", machines=3)).keys() == {"attic", "cellar"}
    assert acts([wanted("x", demand=spanning(25, "attic"))], THREE) != []
    newcomer = wanted("x", demand=spanning(40, "attic", machines=3))
    others = [ready("a", pinned=True, **at("attic/G", 1))]
    assert acts([*others, newcomer], THREE) == ["REFUSE x"]


def test_one_that_must_not_span_is_refused() -> None:
    alone = Demand(15, 15, here=False, elsewhere={"attic": Demand(15, 15)})
    others = [ready("a", pinned=True, **at("attic/G", 1))]
    assert acts([*others, wanted("x", demand=alone)], THREE) == ["REFUSE x"]


def test_room_is_made_on_every_machine_of_it() -> None:
    there = [ready("a", **at("attic/G", 5)), ready("b", **at("cellar/G", 5))]
    newcomer = wanted("x", demand=spanning(18, "attic"))
    assert acts([*there, newcomer], THREE) == ["STOP a", "STOP b"]
    # Only of those that are needed for it.
    third = [ready("a", **at("attic/G", 5)), ready("c", **at("barn/G", 5))]
    assert acts([*third, newcomer], THREE) == ["STOP a"]


def test_one_that_is_busy_on_a_helper_is_drained() -> None:
    there = [busy("b", ready_since=NOW - 1000, **at("cellar/G", 5))]
    newcomer = wanted("x", since=NOW - 500, demand=spanning(18, "attic"))
    assert acts([*there, newcomer], THREE) == ["DRAIN b"]


def test_it_counts_on_each_of_its_machines() -> None:
    on = (("attic/G", 8), ("cellar/G", 8))
    there = ready("s", pinned=True, on=on, demand=Demand(16, 16))
    one = Demand(5, 5, here=False, elsewhere=dict.fromkeys(("attic", "cellar"), Demand(5, 5)))
    assert acts([there, wanted("x", demand=one)], THREE) == ["REFUSE x"]
    # It goes where another one needs its place on either.
    there = replace(there, pinned=False)
    assert acts([there, wanted("x", demand=one)], THREE) == ["STOP s"]


def test_who_comes_later_finds_its_place_taken() -> None:
    first = wanted("x", since=NOW - 5, demand=spanning(15, "attic"))
    one = Demand(5, 5, here=False, elsewhere={"cellar": Demand(5, 5)})
    assert acts([first, wanted("y", demand=one)], THREE) == ["START x attic/G cellar/G"]


def test_a_helper_that_is_gone_helps_nobody() -> None:
    without = cluster(machine(G=4), attic=machine(G=10))
    others = [ready("a", pinned=True, **at("attic/G", 1))]
    assert acts([*others, wanted("x", demand=spanning(15, "attic"))], without) == ["REFUSE x"]


@pytest.mark.parametrize("placement", ["pack", "spread"])
def test_fewer_machines_come_first(placement: str) -> None:
    limits = SchedulingLimits(placement=placement)  # type: ignore[arg-type]  # both are
    memory = cluster(
        machine(G=4),
        attic=machine(G=10),
        cellar=machine(G=30),
        barn=machine(G=6),
        loft=machine(G=6),
    )
    nodes = ("attic", "cellar", "barn", "loft")
    one = Demand(33, 33, most_helpers=3)
    elsewhere = {
        "barn": replace(one, helpers=("attic", "loft")),
        "attic": replace(one, helpers=tuple(n for n in nodes if n != "attic")),
    }
    demand = replace(one, here=False, elsewhere=elsewhere)
    assert {n.partition("/")[0] for n, _ in start(memory, demand, limits).on} == {"attic", "cellar"}
