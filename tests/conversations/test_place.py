"""In which slot a request goes."""

from __future__ import annotations

import random

import pytest

from gateway.conversations.chain import NO_CHAIN, Chain
from gateway.conversations.place import LOSING_ALL, Placing, SlotView, place, spared_by_waiting


def chain(text: str, size: int = 1000) -> Chain:
    """A link for each prefix of ``text``."""
    links = tuple(text[:end].encode().ljust(16)[:16] for end in range(1, len(text) + 1))
    return Chain(links, tuple(size * end for end in range(1, len(text) + 1)))


def slots(*texts: str, busy: tuple[int, ...] = ()) -> list[SlotView]:
    return [
        SlotView(number, chain(text) if text else NO_CHAIN, number not in busy, number - 100.0)
        for number, text in enumerate(texts)
    ]


def test_conversation_goes_where_it_is() -> None:
    assert place(chain("abcd"), slots("xy", "abc", ""), 0) == Placing(1, False, 0)


def test_what_is_saved_is_not_read_where_it_is_live() -> None:
    assert place(chain("abcd"), slots("xy", "abc"), 3) == Placing(1, False, 0)


@pytest.mark.parametrize("saved", [0, 2, 4])
def test_conversation_is_found_among_many_that_begin_alike(saved: int) -> None:
    """And one that has more of it in common comes first only if that is worth what it loses."""
    many = slots(*("a" + text for text in "bcdefghi"), "abcx", "abcd", "")
    assert place(chain("abcdef"), many, saved) == Placing(9, False, 0)
    longer = [*many, SlotView(11, chain("abcdeyy"), used=-5.0)]
    assert place(chain("abcdef"), longer, saved) == Placing(11, False, 2000)
    longer[-1] = SlotView(11, chain("abcde" + "y" * 25), used=-5.0)
    assert place(chain("abcdef"), longer, saved) == Placing(9, False, 0)


@pytest.mark.parametrize(("busy", "spared"), [("abce", 0), ("abcd", 1000), ("abcdef", 3000)])
def test_waiting_spares_what_a_slot_at_work_has_more_of_it(busy: str, spared: int) -> None:
    views = slots("abc", busy, "ax", busy=(1, 2))
    placing = place(chain("abcdef"), views, 0)
    assert placing == Placing(0, False, 0)
    assert spared_by_waiting(chain("abcdef"), views, 0, placing) == spared


def test_what_is_saved_goes_into_an_empty_slot() -> None:
    assert place(chain("abcd"), slots("xy", "", "a"), 3) == Placing(1, True, 0)


def test_new_conversation_goes_into_an_empty_slot() -> None:
    assert place(chain("q"), slots("xy", ""), 0) == Placing(1, False, 0)


def test_new_conversation_takes_the_slot_that_loses_least() -> None:
    assert place(chain("q"), slots("xyz", "x", "xy"), 0) == Placing(1, False, 1000)


def test_what_is_never_saved_is_lost_for_no_shared_opening() -> None:
    """It would have to be computed again; a saved conversation is read back."""
    views = slots("a" + "x" * 15, "")
    assert place(chain("aq"), views, 0) == Placing(0, False, 15000)
    assert place(chain("aq"), views, 0, losing=LOSING_ALL) == Placing(1, False, 0)


def test_of_equal_ones_that_not_used_for_longest_is_taken() -> None:
    assert place(chain("q"), slots("xy", "vw"), 0) == Placing(0, False, 2000)


def test_busy_slot_is_not_taken_even_if_the_conversation_is_there() -> None:
    assert place(chain("abc"), slots("ab", "x", busy=(0,)), 2) == Placing(1, True, 1000)
    assert place(chain("abc"), slots("ab", busy=(0,)), 2) is None


def test_branch_takes_the_slot_only_if_that_is_worth_what_it_loses() -> None:
    held = Chain(chain("abc").links, (10, 500_000, 1_000_000))
    views = [SlotView(0, held), SlotView(1, NO_CHAIN)]
    little = Chain(chain("ax").links, (10, 20))
    much = Chain(chain("abx").links, (10, 500_000, 500_010))
    assert place(little, views, 0) == Placing(1, False, 0)
    assert place(much, views, 0) == Placing(0, False, 500_000)


def test_what_is_read_back_loses_nothing_of_itself() -> None:
    assert place(chain("abcdefgh"), slots("abxy"), 8) == Placing(0, True, 2000)


@pytest.mark.parametrize("others", [[], ["xy"], ["xy", ""]])
def test_what_is_live_and_saved_is_not_read_for_its_answer(others: list[str]) -> None:
    """``saved`` counts the answer to what ends in the file; so has the slot that answer."""
    number = len(others)
    views = slots(*others, "abc")
    assert place(chain("abcde"), views, 4) == Placing(number, False, 0)
    assert place(chain("abc"), views, 3) == Placing(number, False, 0)


def test_little_more_than_is_live_is_not_read() -> None:
    assert place(chain("abcdef"), slots("abcd"), 5, least=1500) == Placing(0, False, 0)
    assert place(chain("abcdefgh"), slots("abcd"), 8, least=1500) == Placing(0, True, 0)


def test_conversation_that_nobody_goes_on_with_counts_for_less() -> None:
    views = [SlotView(0, chain("abcdefgh"), used=-3600), SlotView(1, chain("xyz"), used=-5)]
    assert place(chain("q"), views, 0) == Placing(0, False, 8000)
    views = [SlotView(0, chain("abcdefgh"), used=-60), SlotView(1, chain("xyz"), used=-5)]
    assert place(chain("q"), views, 0) == Placing(1, False, 3000)


@pytest.mark.parametrize("held", [20_000, 1_000_000])
def test_common_system_prompt_is_no_reason_to_throw_a_conversation_out(held: int) -> None:
    other = Chain(chain("ab").links, (900, held))
    views = [SlotView(0, other), SlotView(1, NO_CHAIN)]
    assert place(Chain(chain("ac").links, (900, 950)), views, 0) == Placing(1, False, 0)


@pytest.mark.parametrize("seed", range(20))
def test_no_decision_is_made_that_another_one_dominates(seed: int) -> None:
    """For a free slot, and with no other one where less is computed and no more is lost."""
    chosen = random.Random(seed)
    for _ in range(200):
        texts = ["".join(chosen.choices("ab", k=chosen.randrange(6))) for _ in range(4)]
        busy = tuple(number for number in range(4) if chosen.random() < 0.3)
        asked = chain("".join(chosen.choices("ab", k=5)))
        saved, least = chosen.randrange(6), chosen.choice((0, 1500))
        views = slots(*texts, busy=busy)
        placing = place(asked, views, saved, least)
        if len(busy) == 4:
            assert placing is None
            continue
        assert placing is not None
        assert placing.slot not in busy

        def live(view: SlotView, asked: Chain = asked) -> int:
            return asked.size(asked.common(view.chain.links))

        taken = views[placing.slot]
        assert placing.loses == taken.chain.size() - live(taken)
        there = asked.size(saved) if placing.restore else live(taken)
        assert there >= live(taken)
        for view in views:
            if view.free:
                loses = view.chain.size() - live(view)
                assert not (live(view) >= there and loses < placing.loses), (placing, view)
                assert not (live(view) > there and loses <= placing.loses), (placing, view)
        if not placing.restore and saved:
            held = len(taken.chain.links)
            if held and asked.common(taken.chain.links) == held:  # with its answer
                there = asked.size(min(held + 1, 5))
            assert asked.size(saved) * 0.95 - there <= max(1, least), "worth to be read back"
