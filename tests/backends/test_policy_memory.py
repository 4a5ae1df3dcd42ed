"""What the policy does where other programs have taken memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.backends.decision import Act, Action, Decision, ModelView, SchedulingLimits
from gateway.backends.placement import Card, Look, Memory
from gateway.backends.policy import decide
from tests.model_views import (
    NOW,
    busy,
    draining,
    limits_of_any_kind,
    need,
    ready,
    views,
    wanted,
)


def seen(**cards: tuple[int, int]) -> Memory:
    """The memory as a look that has just been made found it: name -> (size, left)."""
    return Memory(tuple(Card(n, size, left) for n, (size, left) in cards.items()), seen=NOW)


def decided(models: Sequence[ModelView], memory: Memory, now: float = NOW) -> list[str]:
    decision = decide(models, SchedulingLimits(), now, memory)
    return [f"{a.act.name} {a.model}" for a in decision.actions]


def test_nothing_starts_or_goes_before_the_memory_was_looked_at() -> None:
    idle = ready("a", demand=need(10), on=(("G", 10),))
    models = [idle, wanted("x", demand=need(15)), wanted("y", demand=need(1))]
    old = replace(seen(G=(20, 20)), look=Look.STALE)
    assert decided(models, old) == ["LOOK x"]
    assert decided(models, replace(old, look=Look.UNDER_WAY)) == []
    assert decided(models, seen(G=(20, 20))) == ["STOP a"]
    # One that was made before it came doesn't count.
    assert decided(models, replace(seen(G=(20, 20)), seen=NOW - 1)) == ["LOOK x"]


def test_a_drain_is_not_called_off_while_the_memory_is_looked_at() -> None:
    models = [draining("a", in_flight=1, demand=need(10), on=(("G", 10),)), wanted("x", 0)]
    models[1] = replace(models[1], demand=need(15))
    assert decided(models, replace(seen(G=(20, 20)), look=Look.UNDER_WAY)) == []
    assert decided([models[0]], seen(G=(20, 20))) == ["RESUME a"]


def test_nobody_goes_where_that_is_not_enough() -> None:
    idle = ready("a", demand=need(5), on=(("G", 5),))
    newcomer = wanted("x", demand=need(15))
    decision = decide([idle, newcomer], SchedulingLimits(), NOW, seen(G=(20, 7)))
    assert decision == Decision((), NOW + 2, frozenset("x"))
    assert decided([idle, newcomer], seen(G=(20, 15))) == ["STOP a"]


def test_memory_of_others_is_waited_for_and_then_given_up() -> None:
    newcomer = wanted("x", since=NOW - 25, demand=need(15), short_since=NOW - 20)
    assert decided([newcomer], seen(G=(20, 2))) == []
    late = replace(seen(G=(20, 2)), seen=NOW + 10)
    assert decided([newcomer], late, NOW + 10) == ["GIVE_UP x"]
    assert decided([newcomer], replace(late, cards=seen(G=(20, 15)).cards), NOW + 10) == ["START x"]


def test_who_waits_for_others_keeps_no_place_from_those_who_fit() -> None:
    models = [wanted("big", 1, demand=need(15)), wanted("small", 2, demand=need(1))]
    assert decided(models, seen(G=(20, 2))) == ["START small"]


def test_only_models_of_the_card_that_is_needed_go() -> None:
    models = [
        ready("a", demand=need(10), on=(("G", 10),), last_used=1),
        ready("b", demand=need(15), on=(("H", 15),), last_used=2),
        wanted("x", demand=need(18)),
    ]
    memory = seen(G=(24, 12), H=(24, 24))
    assert decided(models, memory) == ["STOP b"]
    busy = [models[0], replace(models[1], in_flight=1), replace(models[2], oldest_wait=NOW - 20)]
    assert decided(busy, memory) == ["DRAIN b"]


def test_where_it_starts_is_part_of_the_decision() -> None:
    (action,) = decide(
        [wanted("x", demand=need(9))], SchedulingLimits(), NOW, seen(G=(9, 8), H=(24, 24))
    ).actions
    assert action == Action(Act.START, "x", (("H", 9),))


def test_a_place_an_older_one_waits_for_is_kept_on_its_card() -> None:
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
def test_no_card_is_ever_overdrawn(models: Any, limits: Any, sizes: Any, data: Any) -> None:
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
