"""What the policy does with several copies of a model: one alone makes room, or was idle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gateway.backends.decision import CopyView, ModelView, SchedulingLimits
from gateway.backends.placement import Demand, Memory
from gateway.backends.policy import decide
from tests.machine_views import anywhere, cluster, machine
from tests.model_views import NOW, ready, wanted

MEMORY = cluster(machine(G=10), attic=machine(G=10), cellar=machine(G=10))


def copied(name: str, *devices: str, used: Sequence[float] = (), **changes: Any) -> ModelView:
    """A model with a copy of 8 on each of these devices; ``used``: when each was."""
    times = [*used, *[0.0] * len(devices)]
    copies = [CopyView(n, ((on, 8),), 0, times[n]) for n, on in enumerate(devices)]
    on, size = tuple((device, 8) for device in devices), 8 * len(devices)
    last = max(times)
    return replace(
        ready(name, on=on, demand=Demand(size, size), last_used=last, recent_until=last, **changes),
        copies=tuple(copies),
    )


def working(model: ModelView, *numbers: int) -> ModelView:
    """The same with a request at each of these copies."""
    copies = tuple(replace(c, in_flight=int(c.number in numbers)) for c in model.copies)
    return replace(model, copies=copies, in_flight=len(numbers))


def leaving(model: ModelView, number: int) -> ModelView:
    copies = tuple(replace(c, leaving=c.leaving or c.number == number) for c in model.copies)
    return replace(model, copies=copies)


def acts(
    models: Sequence[ModelView], memory: Memory = MEMORY, now: float = NOW, **limits: Any
) -> list[str]:
    made = decide(models, SchedulingLimits(**limits), now, memory).actions
    return [
        f"{a.act.name} {a.model}" + (f" {a.copy}" if a.act.name == "STOP_COPY" else "")
        for a in made
    ]


def test_a_copy_goes_alone_where_the_newcomer_may_be() -> None:
    a = copied("a", "G", "attic/G")
    assert acts([a, wanted("x", demand=anywhere(8))]) == ["STOP_COPY a 0"]
    there = anywhere(8, "attic", here=False)
    assert acts([a, wanted("x", demand=there)]) == ["STOP_COPY a 1"]
    assert acts([replace(a, pinned=True), wanted("x", demand=there)]) == ["REFUSE x"]


def test_the_last_copy_goes_with_its_model() -> None:
    a, b = copied("a", "G", "attic/G"), ready("b", on=(("cellar/G", 8),))
    x = wanted("x", demand=anywhere(8))
    y = wanted("y", NOW + 1, demand=anywhere(8, "attic", here=False))
    # For the second one all that is left of it has to go.
    assert acts([a, b, x, y]) == ["STOP_COPY a 0", "STOP a"]
    assert acts([leaving(a, 0), x]) == []
    assert acts([leaving(a, 1), x]) == ["STOP a"]


def test_a_copy_does_less_harm_than_a_model() -> None:
    a = copied("a", "G", "attic/G", used=(NOW - 20, NOW - 10))
    b = ready("b", on=(("cellar/G", 8),), demand=Demand(), last_used=NOW - 900)
    x = wanted("x", demand=anywhere(8, "attic", "cellar"))
    assert acts([a, b, x]) == ["STOP_COPY a 0"]
    # As long as it is idle: nobody's answer is waited for.
    assert acts([working(a, 0, 1), b, x]) == ["STOP b"]
    assert acts([working(a, 0), b, x]) == ["STOP_COPY a 1"]


def test_of_copies_on_one_machine_the_one_goes_that_was_used_least_recently() -> None:
    memory = machine(G=10, H=10, J=10)
    a = copied("a", "G", "H", "J", used=(NOW - 10, NOW - 30, NOW - 20))
    assert acts([a, wanted("x", demand=Demand(8, 8))], memory) == ["STOP_COPY a 1"]
    big = Demand(20, 20)
    assert acts([a, wanted("x", demand=big)], memory) == ["STOP_COPY a 1", "STOP_COPY a 2"]
    assert acts([a, wanted("x", demand=Demand(28, 28))], memory) == ["STOP a"]


def test_a_busy_copy_goes_when_its_turn_is_over() -> None:
    a = working(copied("a", "G", "attic/G", ready_since=NOW - 100), 0, 1)
    x = wanted("x", demand=anywhere(8))
    assert acts([a, x]) == []
    assert acts([a, x], now=NOW + 20) == ["STOP_COPY a 0"]
    assert acts([leaving(a, 0), x], now=NOW + 20) == []


def test_where_too_many_models_are_loaded_a_copy_is_no_help() -> None:
    a = copied("a", "G", "attic/G")
    x = wanted("x", demand=anywhere(8, "cellar", here=False))
    assert acts([a, x], max_loaded=1) == ["STOP a"]
    assert acts([a, x], max_loaded=2) == ["START x"]


def test_copies_that_idle_go_and_the_one_used_last_stays() -> None:
    a = copied("a", "G", "attic/G", "cellar/G", used=(NOW - 70, NOW, NOW - 60), expires=NOW + 60)
    assert acts([a]) == ["STOP_COPY a 0", "STOP_COPY a 2"]
    decision = decide([a], SchedulingLimits(), NOW - 20, MEMORY)
    assert (decision.actions, decision.wake_at) == ((), NOW - 10)
    assert acts([working(a, 0)]) == ["STOP_COPY a 2"]
    assert acts([replace(a, pinned=True)]) == []
    assert acts([a], now=NOW + 60) == ["STOP a"]


def test_a_copy_that_is_not_ready_keeps_no_model() -> None:
    a = copied("a", "G", "attic/G")
    coming = replace(a, copies=(a.copies[0], replace(a.copies[1], ready=False)))
    there = anywhere(8, "attic", here=False)
    assert acts([coming, wanted("x", demand=there)]) == ["STOP_COPY a 1"]
    assert acts([coming, wanted("x", demand=anywhere(8))]) == ["STOP a"]
