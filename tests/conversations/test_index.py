"""What is saved, found by the beginning of a request, and what has to go first."""

from __future__ import annotations

import random
from collections.abc import Callable
from time import perf_counter

import orjson
import pytest

from gateway.conversations.chain import Chain
from gateway.conversations.counts import Held
from gateway.conversations.facts import read, written
from gateway.conversations.index import Index, Saved, least_valuable, mend_times, too_old
from gateway.conversations.shared import SHARED
from tests.conversations.test_place import chain

DAY = 86_400.0
#: Some time in 2026.
NOW = 1_790_000_000.0


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


@pytest.mark.parametrize(("asked", "reach"), [("abcde", 4), ("abc", 3), ("abx", 2), ("abcx", 4)])
def test_file_has_the_answer_to_what_it_ends_with(asked: str, reach: int) -> None:
    found = index(saved("abc")).longest("f", chain(asked))
    assert found is not None
    assert found.reach(chain(asked)) == reach


def test_file_of_a_mere_beginning_has_no_answer() -> None:
    opening = saved("ab")
    opening.chain = opening.chain._replace(shared=2)
    found = index(opening).longest("f", chain("abc"))
    assert found is not None
    assert found.reach(chain("abc")) == 2


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


def test_what_is_here_of_each_model_and_owner_is_counted() -> None:
    one, two, other = saved("abc", size=7), saved("abd", size=5), saved("xy", size=3)
    other.model, other.owner = "n", "l"
    all_of_it = index(one, two, other)
    assert all_of_it.of_models == {"m": Held(2, 12), "n": Held(1, 3)}
    assert all_of_it.of_owners == {"k": Held(2, 12), "l": Held(1, 3)}
    for gone in (one, one, other):
        all_of_it.remove(gone)
    assert (all_of_it.of_models, all_of_it.of_owners) == ({"m": Held(1, 5)}, {"k": Held(1, 5)})


def test_what_is_continued_is_superfluous_and_a_branch_is_not() -> None:
    turn, branch, longer = saved("ab"), saved("abx"), saved("abcd")
    assert index(turn, branch, longer).contained(longer) == [turn]


def test_same_conversation_saved_again_takes_the_place_of_the_older() -> None:
    older, newer = saved("ab", name="1"), saved("ab", name="2")
    assert index(older, newer).contained(newer) == [older]


def test_beginning_that_many_share_is_found_in_the_last_of_them_that_is_left() -> None:
    several = [saved("ab" + end) for end in "xyz"]
    all_of_it = index(*several)
    for one in (several[2], several[0]):
        all_of_it.remove(one)
    found = all_of_it.longest("f", chain("abq"))
    assert found is not None
    assert (found.saved, found.links) == (several[1], 2)
    assert all_of_it.tidy(1)
    assert not all_of_it.tidy(1)
    all_of_it.remove(several[1])
    assert all_of_it.longest("f", chain("abq")) is None
    assert not all_of_it.tidy()
    assert (len(all_of_it), all_of_it.size) == (0, 0)


def test_least_seconds_for_a_byte_go_first_and_older_ones_count_for_less() -> None:
    cheap = saved("a", seconds=1.0, used=9 * DAY)
    dear = saved("b", seconds=10.0, used=9 * DAY)
    old = saved("c", seconds=10.0, used=0.0)
    all_of_it = [dear, cheap, old]
    assert least_valuable(all_of_it, 9 * DAY, 0) == []
    assert least_valuable(all_of_it, 9 * DAY, 100) == [old]
    assert least_valuable(all_of_it, 9 * DAY, 101) == [old, cheap]
    assert least_valuable(all_of_it, 9 * DAY, 10**9) == [old, cheap, dear]


def test_only_what_nobody_used_for_long_is_too_old() -> None:
    old, new = saved("a", used=NOW), saved("b", used=NOW + 5 * DAY)
    assert too_old([old, new], NOW + 6 * DAY, 3 * DAY) == [old]


@pytest.mark.parametrize("clock", [0.0, NOW - 50 * 365 * DAY, NOW - 365 * DAY])
def test_clock_that_is_behind_makes_nothing_too_old_or_dearer(clock: float) -> None:
    one = saved("a", used=NOW)
    assert too_old([one], clock, DAY) == []
    assert one.worth(clock) == one.worth(NOW)


def test_what_a_machine_without_a_battery_saved_in_1970_is_not_as_old_as_that() -> None:
    one, before = saved("a", used=300.0), saved("b", used=NOW)
    assert mend_times([one, before], 400.0) == [], "it still is 1970"
    assert mend_times([one, before], NOW + DAY) == [one]
    assert too_old([one, before], NOW + DAY, 2 * DAY) == []
    assert too_old([one, before], NOW + 4 * DAY, 2 * DAY) == [one, before]


def test_what_was_used_in_the_future_ages_from_now_on() -> None:
    one, soon = saved("a", used=NOW + 3650 * DAY), saved("b", used=NOW + 60.0)
    assert mend_times([one, soon], NOW) == [one]
    assert one.used == NOW
    assert too_old([one], NOW + 3 * DAY, 2 * DAY) == [one]


def best(what: Callable[[], object]) -> float:
    """Seconds of the fastest of some calls."""
    took = []
    for _ in range(20):
        began = perf_counter()
        what()
        took.append(perf_counter() - began)
    return min(took)


def test_no_step_on_the_event_loop_takes_a_millisecond_with_ten_thousand_conversations() -> None:
    """Of 60 messages each, of which all share the first; two seconds are for their making."""
    made, chosen = Index(), random.Random(1)
    first = chosen.randbytes(16)

    def long(links: int) -> Chain:
        return Chain((first, *(chosen.randbytes(16) for _ in range(links - 1))), (*range(links),))

    for number in range(10_000):
        made.add(Saved(f"{number}", "m", "f", "k", long(60), 1, 1, 1.0, 0.0, 0.0, 1, 0))
    asked, newer = long(100), Saved("newer", "m", "f", "k", long(60), 1, 1, 1.0, 0.0, 0.0, 1, 0)

    def turn() -> None:
        found = made.longest("f", asked)
        assert found is not None
        assert found.links == 1
        made.add(newer)
        assert made.contained(newer) == []
        made.remove(newer)
        assert not made.tidy()

    assert best(turn) < 0.001
    assert best(lambda: tuple(made)) < 0.001
    for one in made:
        made.remove(one)
    assert made.longest("f", asked) is None or made.tidy()
    assert best(made.tidy) < 0.005
    while made.tidy():
        pass
    assert made.longest("f", asked) is None
    assert (len(made), made.size) == (0, 0)


def with_shared(text: str, owner: str) -> Saved:
    one = saved(text)
    one.owner, one.chain = owner, one.chain._replace(shared=1)
    return one


def test_what_a_key_asked_is_not_found_by_what_all_keys_share() -> None:
    theirs = with_shared("pab", "k")
    assert index(theirs).longest("f", chain("px")) is None
    found = index(theirs).longest("f", chain("pax"))
    assert found is not None
    assert found.links == 2


def test_what_all_keys_share_is_found_and_stays_when_it_is_continued() -> None:
    common, theirs = with_shared("p", SHARED), with_shared("pab", "k")
    all_of_it = index(common, theirs)
    found = all_of_it.longest("f", chain("px"))
    assert found is not None
    assert found.saved is common
    assert all_of_it.contained(theirs) == []
    all_of_it.remove(common)
    while all_of_it.tidy():
        pass
    assert all_of_it.longest("f", chain("px")) is None


@pytest.mark.parametrize("shared", [-1, 4, True, "1"])
def test_what_is_shared_is_written_down_and_nonsense_refused(shared: object) -> None:
    theirs = with_shared("pab", "k")
    theirs.name = "0" * 24
    text = orjson.loads(written(theirs))
    again = read(orjson.dumps(text))
    assert again is not None
    assert again.chain == theirs.chain
    assert read(orjson.dumps({**text, "shared": shared})) is None
    old = read(orjson.dumps({name: text[name] for name in text if name != "shared"}))
    assert old is not None
    assert old.chain.shared == 0
