"""Which conversations are written again, and how much that is in all."""

from __future__ import annotations

import pytest

from gateway.conversations.index import FoundPrefix
from gateway.conversations.worth import DailyBytes, Writes, Writing, is_worth_it, new_tokens
from tests.conversations.test_index import saved
from tests.conversations.test_place import chain

DAY = 86_400.0


@pytest.mark.parametrize(
    ("writing", "left", "worth"),
    [
        (Writing(1.0, 10.0, 0.1, in_danger=False), 1.0, True),
        (Writing(0.2, 10.0, 0.1, in_danger=False), 1.0, False),
        (Writing(0.2, 10.0, 0.1, in_danger=True), 1.0, True),
        (Writing(0.2, 10.0, 20.0, in_danger=True), 1.0, False),
        (Writing(1.0, 10.0, 20.0, in_danger=False), 1.0, False),
        (Writing(0.2, 10.0, 0.1, in_danger=True), 0.3, False),
        (Writing(0.6, 10.0, 0.1, in_danger=True), 0.3, True),
        (Writing(0.9, 10.0, 0.1, in_danger=True), 0.0, False),
    ],
)
def test_more_has_to_be_new_the_less_is_at_stake_and_the_more_was_written(
    writing: Writing, left: float, worth: bool
) -> None:
    assert is_worth_it(writing, left) is worth


def test_conversation_that_grows_turn_by_turn_is_written_four_times_in_all_at_most() -> None:
    """As an agent does: 200 turns of 250 tokens, each of which used to write all of it."""
    tokens = known = total = turns = 0
    while tokens < 50_000:
        tokens += 250
        turns += tokens
        if is_worth_it(Writing((tokens - known) / tokens, 1.0, 0.1, in_danger=False), 1.0):
            known = tokens
            total += tokens
    assert total <= 4 * tokens
    assert turns > 100 * tokens


def test_swaps_all_day_write_no_more_than_a_day_may() -> None:
    """A conversation of a gigabyte that is swapped out every ten minutes, with a little new."""
    disk, size, total = 10**12, 10**9, 0
    daily = DailyBytes(0.0)
    for swap in range(3 * 24 * 60):
        if is_worth_it(Writing(0.01, 10.0, 1.0, True), daily.left(disk, swap * 60.0)):
            daily.note(size)
            total += size
    assert 3 * disk * 0.1 * 0.9 < total <= 3.5 * disk * 0.1 + size


def test_what_was_written_is_allowed_again_after_a_day() -> None:
    daily = DailyBytes(0.0)
    assert daily.left(1000, 0.0) == 1.0
    daily.note(50)
    assert daily.left(1000, 0.0) == 0.5
    assert daily.left(1000, DAY / 4) == pytest.approx(0.75)
    daily.note(10**9)
    assert daily.left(1000, DAY / 4) == 0.0
    assert daily.left(1000, 1.25 * DAY) == pytest.approx(1.0)
    assert daily.left(0, 1.25 * DAY) == 0.0, "nothing is known of the disk"


def test_only_what_was_added_is_new() -> None:
    before = saved("ab")
    before.tokens = 60
    assert new_tokens(chain("abcd"), 100, None) == 100
    assert new_tokens(chain("abcd"), 100, FoundPrefix(before, 2)) == 40
    assert new_tokens(chain("ab"), 60, FoundPrefix(before, 2)) == 0
    assert new_tokens(chain("abxy"), 100, FoundPrefix(saved("abcd"), 2)) == 50, "a branch"


def test_disk_that_is_slower_than_computing_is_not_waited_for() -> None:
    writes = Writes(0.0)
    one = saved("a", size=10**9)
    one.tokens = 1000

    def worth_it() -> bool:
        return writes.are_worth_it("f", 1000, 1000, 3.0, in_danger=True, disk=10**13, now=0.0)

    assert worth_it(), "nothing is known yet"
    writes.know(one)
    assert worth_it()
    for _ in range(20):
        writes.note(10**8, 1.0)
    assert not worth_it()
