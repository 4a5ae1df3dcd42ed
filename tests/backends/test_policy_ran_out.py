"""What the policy does with a model that ran out of memory on one machine."""

from __future__ import annotations

from dataclasses import replace

from tests.backends.test_policy_machines import acts, at
from tests.machine_views import anywhere, cluster, machine
from tests.model_views import ready, wanted


def test_where_memory_ran_out_it_is_tried_last() -> None:
    memory = cluster(machine(G=24), attic=machine(G=12), cellar=machine(G=24))
    both = anywhere(8, "attic", "cellar", here=False)
    failed = replace(both.elsewhere["attic"], size=10, ran_out=True)
    x = wanted("x", demand=replace(both, elsewhere={**both.elsewhere, "attic": failed}))
    assert acts([wanted("x", demand=both)], memory) == ["START x attic/G"]
    assert acts([x], memory) == ["START x cellar/G"]
    # Others go for it where it hasn't been tried, and nothing where it has.
    full = [ready("a", last_used=2, **at("cellar/G", 20)), ready("b", **at("attic/G", 4))]
    assert acts([*full, x], memory) == ["STOP a"]
    pinned = [replace(full[0], pinned=True), full[1]]
    assert acts([*pinned, x], memory) == ["STOP b"]
    assert acts([pinned[0], x], memory) == ["START x attic/G"]
    more = replace(ready("y", **at("G", 8)), copy=replace(x.demand, here=False))
    assert acts([pinned[0], more], memory) == []
