"""Each rule of the scheduler's policy by example."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.backends.decision import Decision, ModelView, SchedulingLimits
from gateway.backends.policy import decide
from tests.model_views import (
    NOW,
    ONE,
    acts,
    busy,
    draining,
    need,
    ready,
    starting,
    stopping,
    wake,
    wanted,
)

# --- rule 1: a ready model serves ----------------------------------------------------------


def test_a_free_slot_is_given_to_the_first_waiter_and_loaders_are_told() -> None:
    a = ready("a", in_flight=1, slots=2, waiting=5, wanted=1, oldest_wait=NOW)
    assert acts([a]) == ["LOADED a", "GRANT a"]


def test_nobody_is_granted_without_a_free_slot() -> None:
    assert acts([ready("a", in_flight=2, slots=2, waiting=5, oldest_wait=NOW)]) == []


def test_a_grant_does_not_wait_for_anything_else() -> None:
    others = [wanted("old", since=0), starting("s", waiting=3, oldest_wait=1), stopping("t")]
    a = ready("a", waiting=1, oldest_wait=NOW)
    assert acts([*others, a], SchedulingLimits(max_loaded=4))[0] == "GRANT a"


@pytest.mark.parametrize("a", [draining("a", waiting=1), stopping("a", waiting=1)])
def test_one_that_leaves_gets_no_work(a: Any) -> None:
    assert "GRANT a" not in acts([replace(a, oldest_wait=NOW, unload=True)])


# --- rule 2: starts, in the order of the longest wait --------------------------------------


def test_what_fits_starts() -> None:
    assert acts([wanted("a"), wanted("b")], SchedulingLimits()) == ["START a", "START b"]


def test_the_longest_wait_comes_first() -> None:
    assert acts([wanted("a", since=5), wanted("b", since=4)]) == ["START b"]


def test_a_budget_is_kept() -> None:
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


def test_alone_anything_may_try() -> None:
    assert acts([wanted("a", demand=need(99))], SchedulingLimits(budget=10)) == ["START a"]
    assert acts(
        [wanted("a", demand=need(99)), wanted("b", demand=need(1))], SchedulingLimits(budget=10)
    ) == ["START a"]


def test_backoff_is_waited_for_and_keeps_no_place() -> None:
    blocked = wanted("a", 1, blocked_until=NOW + 3)
    assert acts([blocked, wanted("b", 2)]) == ["START b"]
    assert wake([blocked]) == NOW + 3
    assert acts([blocked], now=NOW + 3) == ["START a"]


# --- rule 3: idle models go ----------------------------------------------------------------


def test_the_least_recently_used_idle_one_goes() -> None:
    idle = [ready("a", last_used=2), ready("b", last_used=1), ready("c", last_used=3)]
    assert acts([*idle, wanted("x")], SchedulingLimits(max_loaded=3)) == ["STOP b"]


def test_no_more_go_than_are_needed() -> None:
    idle = [ready("small", demand=need(1), last_used=1), ready("big", demand=need(9), last_used=2)]
    assert acts([*idle, wanted("x", demand=need(9))], SchedulingLimits(budget=10)) == ["STOP big"]


def test_the_place_of_one_that_stops_is_taken_until_it_has_gone() -> None:
    assert acts([stopping("a"), wanted("x")]) == []
    assert acts([wanted("x")]) == ["START x"]


def test_none_goes_while_enough_is_going_already() -> None:
    assert acts([stopping("a"), ready("b"), wanted("x")], SchedulingLimits(max_loaded=2)) == []


def test_one_that_died_starts_again_in_its_own_place() -> None:
    dying = stopping("a", waiting=1, oldest_wait=1)
    assert acts([dying, wanted("b", 2)]) == []
    assert acts([wanted("a", 1), wanted("b", 2)]) == ["START a"]


# --- rule 4: busy models are drained -------------------------------------------------------


def test_a_busy_one_is_drained_when_the_newcomer_has_been_patient() -> None:
    models = [busy("a"), wanted("x")]
    assert acts(models, now=NOW + 14.9) == []
    assert wake(models) == NOW + 15
    assert acts(models, now=NOW + 15) == ["DRAIN a"]


def test_a_turn_is_as_long_as_a_few_swaps() -> None:
    models = [busy("a", ready_since=NOW - 3, load_time=2), wanted("x", since=NOW - 3, load_time=1)]
    assert acts(models) == []
    assert wake(models) == NOW - 3 + 12
    assert acts(models, now=NOW + 9) == ["DRAIN a"]
    slow = [replace(models[0], load_time=5), models[1]]  # 24 s
    assert wake(slow) == NOW + 21
    fast = [replace(models[0], load_time=0.1), replace(models[1], load_time=0.1)]
    assert acts(fast, now=NOW - 3 + 1.9) == []
    assert acts(fast, now=NOW - 3 + 2) == ["DRAIN a"]


def test_the_longest_turn_is_bounded() -> None:
    models = [busy("a", ready_since=NOW, load_time=500), wanted("x", since=NOW)]
    assert wake(models) == NOW + 60


def test_who_has_waited_for_long_waits_for_no_long_turn() -> None:
    models = [busy("a", ready_since=NOW, load_time=10), wanted("x", since=NOW - 68)]
    assert wake(models) == NOW + 5  # but for what is no turn if it is shorter
    assert acts(models, now=NOW + 5) == ["DRAIN a"]
    models[1] = wanted("x", since=NOW - 60)
    assert wake(models) == NOW + 10


def test_one_that_was_used_a_moment_ago_counts_as_busy() -> None:
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


def test_one_that_is_idle_goes_before_one_that_was_used_a_moment_ago() -> None:
    recent = ready("a", recent_until=NOW + 3, last_used=NOW + 1)
    models = [recent, ready("b", last_used=NOW + 2), wanted("x")]
    assert acts(models, SchedulingLimits(max_loaded=2)) == ["STOP b"]


@pytest.mark.parametrize(("load", "kept"), [(0.2, 0.02), (2, 0.2), (60, 0.3), (None, 0.3)])
def test_who_comes_when_it_is_idle_may_be_its_own_client_and_does_not_wait_for_itself(
    load: float | int | None, kept: float
) -> None:
    a = ready("a", last_used=NOW, recent_until=NOW + 5, load_time=load)
    assert wake([a, wanted("x")]) == pytest.approx(NOW + kept)
    assert acts([a, wanted("x")], now=NOW + kept + 0.001) == ["STOP a"]
    assert acts([a, wanted("x", since=NOW + 1)], now=NOW + 1) == ["STOP a"]
    # A client that hangs up and asks for the next model at once is heard of in this order or that.
    assert acts([a, wanted("x", since=NOW - 0.02)], now=NOW + 1) == ["STOP a"]
    assert acts([a, wanted("x", since=NOW - 0.2)], now=NOW + 1) == []


def test_the_least_recently_used_one_goes_first_whatever_its_load_took() -> None:
    slow = ready("slow", last_used=NOW - 0.1, recent_until=NOW + 5, load_time=60)
    quick = ready("quick", last_used=NOW, recent_until=NOW + 5, load_time=0.1)
    assert acts([slow, quick, wanted("x")], SchedulingLimits(max_loaded=2)) == ["STOP slow"]


def test_clients_that_have_met_are_still_two_when_one_asks_in_the_others_pause() -> None:
    a = ready("a", last_used=NOW, recent_until=NOW + 5, load_time=1, vied=NOW - 2)
    x = wanted("x", since=NOW + 1, load_time=1, vied=NOW - 2)
    assert acts([a, x], now=NOW + 1) == []
    assert acts([replace(a, vied=NOW - 60), x], now=NOW + 1) == ["STOP a"]
    assert acts([a, replace(x, vied=NOW - 60)], now=NOW + 1) == ["STOP a"]


def test_one_that_is_drained_stops_when_its_work_is_done() -> None:
    assert acts([draining("a", in_flight=1), wanted("x", 0)]) == []
    assert acts([draining("a"), wanted("x", 0)]) == ["STOP a"]
    assert acts([draining("a", waiting=2, oldest_wait=NOW), wanted("x", 0)]) == ["STOP a"]


def test_one_that_is_drained_takes_work_again_if_nobody_needs_its_place() -> None:
    assert acts([draining("a", in_flight=1)]) == ["RESUME a"]
    assert acts([draining("a"), wanted("x", blocked_until=NOW + 9)]) == ["RESUME a"]
    assert acts([draining("a"), wanted("x")], SchedulingLimits(max_loaded=2)) == [
        "START x",
        "RESUME a",
    ]


def test_only_as_many_are_drained_as_are_needed() -> None:
    models = [draining("a", in_flight=1), draining("b", in_flight=1), wanted("x", 0)]
    assert acts(models, SchedulingLimits(max_loaded=2)) == ["RESUME b"]


def test_idle_ones_stay_until_the_busy_ones_have_ended() -> None:
    models = [
        ready("idle", demand=need(5)),
        busy("b", demand=need(5)),
        wanted("x", 0, demand=need(10)),
    ]
    limits = SchedulingLimits(budget=10)
    assert acts(models, limits) == ["DRAIN b"]
    models[1] = draining("b", demand=need(5))
    assert sorted(acts(models, limits)) == ["STOP b", "STOP idle"]


def test_nothing_is_drained_in_vain() -> None:
    models = [
        ready("p", demand=need(8), pinned=True),
        busy("b", demand=need(2)),
        wanted("x", 0, demand=need(5)),
    ]
    assert acts(models, SchedulingLimits(budget=10)) == ["REFUSE x"]


def test_nothing_is_drained_for_one_whose_turn_has_not_come() -> None:
    """Beside "x", which comes first, there is no room for "y" whatever goes."""
    newcomers = [wanted("x", 0, demand=need(7)), wanted("y", 1, demand=need(5))]
    models = [busy("a", demand=need(5)), busy("b", demand=need(2)), *newcomers]
    assert acts(models, SchedulingLimits(budget=10)) == ["DRAIN a"]


# --- rules 5 and 6 -------------------------------------------------------------------------


def test_a_load_nobody_waits_for_makes_room() -> None:
    assert acts([starting("a"), wanted("x")]) == ["STOP a"]
    assert acts([starting("a", wanted=1, oldest_wait=1), wanted("x")]) == []
    assert acts([starting("a")]) == []


def test_a_place_an_older_one_waits_for_is_not_given_to_a_younger_one() -> None:
    limits = SchedulingLimits(budget=10)
    models = [
        busy("a", demand=need(6)),
        wanted("big", 1, demand=need(8)),
        wanted("small", 2, demand=need(2)),
    ]
    assert acts(models, limits, now=2) == []


def test_a_younger_one_has_what_the_older_one_leaves() -> None:
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


def test_pinned_models_stay() -> None:
    assert acts([ready("p", pinned=True), wanted("x", 0)]) == ["REFUSE x"]
    models = [ready("p", pinned=True), ready("a", last_used=NOW), wanted("x", 0)]
    assert acts(models, SchedulingLimits(max_loaded=2)) == ["STOP a"]
    assert acts([ready("p", pinned=True, expires=1.0)]) == []


@pytest.mark.parametrize("p", [stopping("p", pinned=True), ready("p", pinned=True, unload=True)])
def test_one_that_leaves_is_not_pinned_any_more(p: Any) -> None:
    assert "REFUSE x" not in acts([p, wanted("x", 0)])


def test_unloading_waits_for_what_runs() -> None:
    assert acts([draining("a", unload=True, in_flight=1)]) == []
    assert acts([draining("a", unload=True, pinned=True)]) == ["STOP a"]
    assert acts([starting("a", unload=True)]) == ["STOP a"]
    assert acts([stopping("a", unload=True)]) == []


def test_one_that_is_unloaded_while_requests_wait_comes_back_when_it_has_gone() -> None:
    a = draining("a", unload=True, waiting=1, oldest_wait=1)
    assert acts([a]) == ["STOP a"]
    assert acts([stopping("a", waiting=1, oldest_wait=1), wanted("b", 2)]) == []


def test_idle_models_are_stopped_when_they_expire() -> None:
    assert acts([ready("a", expires=NOW)]) == ["STOP a"]
    assert acts([ready("a", expires=NOW + 5)]) == []
    assert wake([ready("a", expires=NOW + 5), ready("b", expires=NOW + 4)]) == NOW + 4
    assert acts([busy("a", expires=NOW - 5)]) == []
    assert acts([starting("a", expires=NOW - 5)]) == []


def test_nothing_is_decided_where_nobody_waits() -> None:
    assert decide([], ONE, NOW) == Decision((), None)
    assert decide([ready("a"), ModelView("b")], ONE, NOW) == Decision((), None)


# --- rule 9: remote models -----------------------------------------------------------------


def test_a_remote_model_starts_whatever_is_here() -> None:
    full = [ready("a", pinned=True, demand=need(10)), ready("b", in_flight=1, last_used=1)]
    away = wanted("x", remote=True)
    assert acts([*full, away], SchedulingLimits(max_loaded=1, budget=10)) == ["START x"]
    assert acts([ready("big", alone=True, in_flight=1), away]) == ["START x"]


def test_a_remote_model_takes_no_place_and_makes_none() -> None:
    away = ready("x", remote=True, last_used=0)
    assert acts(
        [away, wanted("a", demand=need(10))], SchedulingLimits(max_loaded=1, budget=10)
    ) == ["START a"]
    assert acts([away, starting("b", wanted=1), wanted("a")]) == []
    assert acts([away, ready("b", last_used=5), wanted("a")]) == ["STOP b"]
    assert acts([replace(away, pinned=True), wanted("a", demand=need(99), alone=True)]) == [
        "START a"
    ]


def test_a_remote_model_that_goes_is_no_place_either() -> None:
    leaving = stopping("x", remote=True, waiting=1, oldest_wait=1)
    assert acts([leaving, wanted("a", 2)]) == ["START a"]
    assert acts([ready("x", remote=True, unload=True)]) == ["STOP x"]
    assert acts([ready("x", remote=True, expires=NOW - 1)]) == ["STOP x"]
