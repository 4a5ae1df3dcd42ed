"""What is saved, found by the beginning of a request, and what has to go first."""

from __future__ import annotations

import random
from time import perf_counter

from gateway.conversations.chain import Chain
from gateway.conversations.index import Index, Saved
from tests.conversations.test_place import chain

DAY = 86_400.0


def saved(
    text: str,
    *,
    name: str = "",
    fingerprint: str = "f",
    size: int = 100,
    seconds: float = 1.0,
    used: float = 0.0,
) -> Saved:
    return Saved(
        name or text, "m", fingerprint, "k", chain(text), 10, 8, seconds, used, used, size, 0
    )


def index(*all: Saved) -> Index:
    made = Index()
    for one in all:
        made.add(one)
    return made


def test_longest_beginning_is_found() -> None:
    short, long, other = saved("ab"), saved("abcd"), saved("xy")
    found = index(short, long, other).longest("f", chain("abcdef"))
    assert found is not None
    assert (found.saved, found.links) == (long, 4)


def test_beginning_of_what_is_saved_is_found_for_a_branch() -> None:
    long = saved("abcd")
    found = index(long).longest("f", chain("abx"))
    assert found is not None
    assert (found.saved, found.links) == (long, 2)


def test_nothing_of_another_process_is_found() -> None:
    assert index(saved("abc", fingerprint="g")).longest("f", chain("abc")) is None


def test_what_is_removed_is_not_found_and_leaves_what_shares_its_beginning() -> None:
    one, other = saved("abc"), saved("abd")
    both = index(one, other)
    both.remove(other)
    both.remove(other)
    found = both.longest("f", chain("abd"))
    assert found is not None
    assert (found.saved, found.links) == (one, 2)
    assert (len(both), both.size) == (1, 100)


def test_what_is_continued_is_superfluous_and_a_branch_is_not() -> None:
    turn, branch, longer = saved("ab"), saved("abx"), saved("abcd")
    assert index(turn, branch, longer).contained(longer) == [turn]


def test_same_conversation_saved_again_takes_the_place_of_the_older() -> None:
    older, newer = saved("ab", name="1"), saved("ab", name="2")
    assert index(older, newer).contained(newer) == [older]


def test_least_seconds_for_a_byte_go_first_and_older_ones_count_for_less() -> None:
    cheap = saved("a", seconds=1.0, used=9 * DAY)
    dear = saved("b", seconds=10.0, used=9 * DAY)
    old = saved("c", seconds=10.0, used=0.0)
    all_of_it = index(dear, cheap, old)
    assert all_of_it.outdated(9 * DAY, budget=200, max_age=30 * DAY) == [old]
    assert all_of_it.outdated(9 * DAY, budget=100, max_age=30 * DAY) == [old, cheap]


def test_too_old_ones_go_whatever_room_there_is() -> None:
    old, new = saved("a", used=0.0), saved("b", used=5 * DAY)
    assert index(old, new).outdated(6 * DAY, budget=10**9, max_age=3 * DAY) == [old]


def test_clock_that_was_set_back_makes_nothing_too_old_or_dearer() -> None:
    one = saved("a", used=100 * DAY)
    assert index(one).outdated(0.0, budget=10**9, max_age=DAY) == []
    assert one.worth(0.0) == one.worth(100 * DAY)


def test_ten_thousand_conversations_are_searched_in_no_time() -> None:
    made, chosen = Index(), random.Random(1)
    for number in range(10_000):
        links = tuple(chosen.randbytes(16) for _ in range(20))
        one = Chain(links, tuple(range(20)))
        made.add(Saved(str(number), "m", "f", "k", one, 1, 1, 1.0, 0.0, 0.0, 1, 0))
    asked = Chain(tuple(chosen.randbytes(16) for _ in range(100)), tuple(range(100)))
    took = []
    for _ in range(20):
        began = perf_counter()
        assert made.longest("f", asked) is None
        took.append(perf_counter() - began)
    assert min(took) < 0.001
