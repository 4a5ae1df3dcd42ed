"""Which slot a request goes on in, by what it says: the same as by its chain, or none."""

from __future__ import annotations

import random
from typing import Any

import pytest

from gateway.conversations.chain import Chains
from gateway.conversations.going_on import slot_of
from gateway.conversations.place import place, spared_by_waiting
from gateway.conversations.said import Said
from gateway.conversations.slot import Slot
from tests.conversations.test_chain import chat

CHAINS = Chains()


def said(body: dict[str, Any], owner: str = "k", format: str = "chat") -> Said:
    """What ``body`` says, with its chain."""
    made = Said(CHAINS, owner)
    made.read(body, format, 100)
    made.know(CHAINS.of(body, format, owner))
    return made


def slot_with(held: Said, number: int = 0) -> Slot:
    slot = Slot(number)
    slot.hold(held.chain, held.owner, prompt=100, tokens=100, said=held)
    return slot


TOOLS = [{"type": "function", "function": {"name": "f"}}]
HELD = chat("a", "b", "c")


@pytest.mark.parametrize("texts", ["abc", "abcd", "abcde"])
@pytest.mark.parametrize("more", [{}, {"tools": TOOLS}, {"temperature": 0.5}])
def test_what_repeats_all_that_is_in_a_slot_goes_there(texts: str, more: Any) -> None:
    slots = [slot_with(said(chat("x"))), slot_with(said({**HELD, **more})), Slot(2)]
    assert slot_of(said(chat(*texts, **more)), slots) is slots[1]


@pytest.mark.parametrize(
    "other",
    [
        said(chat("a", "b", "c", "d"), owner="l"),
        said(chat("a", "b", "c", "d", tools=TOOLS)),
        said(chat("a", "b", "c", "d", chat_template_kwargs={"enable_thinking": False})),
        said({**chat("a", "b", "c", "d"), "system": "s"}, format="anthropic"),
        said(chat("a", "b")),
        said(chat("a", "x", "c", "d")),
        said(chat("a", "b", "x", "d")),
    ],
)
def test_what_is_another_conversation_doesnt(other: Said) -> None:
    assert slot_of(other, [slot_with(said(HELD))]) is None


def test_nothing_is_said_of_a_slot_that_is_taken() -> None:
    slot = slot_with(said(HELD))
    slot.take(said(chat("x")).chain, "k")
    assert slot_of(said(HELD), [slot]) is None


def test_chain_is_made_of_what_is_new_and_is_the_same() -> None:
    for more in ({}, {"tools": TOOLS}):
        first, later = said(chat(*"abc", **more)), Said(CHAINS, "k")
        later.read(body := chat(*"abcdefg", **more), "chat", 100)
        later.follow(first)
        assert later.base == first.chain
        assert later.chain == Chains().of(body, "chat", "k")
        assert later.base == later.chain


def test_what_no_chain_can_be_made_of_has_none() -> None:
    later = Said(CHAINS, "k")
    later.read({"messages": [*HELD["messages"], {"role": "tool", "n": 2**70}]}, "chat", 100)
    later.follow(said(HELD))
    assert later.chain.links == ()
    assert later.chain.links == ()


@pytest.mark.parametrize("seed", range(5))
def test_it_is_where_it_would_go_by_its_chain(seed: int) -> None:
    chosen = random.Random(seed)
    found = 0
    for _ in range(1000):
        slots = [_random_slot(chosen, number) for number in range(chosen.choice((1, 1, 2, 4)))]
        asked = said(chat(*_texts(chosen)), owner=chosen.choice("kkl"))
        if (slot := slot_of(asked, slots)) is None:
            continue
        found += 1
        views = [each.view for each in slots]
        placing = place(asked.chain, views, 0, 1, 100.0)
        assert placing is not None
        assert placing.loses == 0
        assert not placing.restore
        assert views[placing.slot].chain == views[slot.number].chain  # there may be two of them
        assert spared_by_waiting(asked.chain, views, 0, placing, 100.0) == 0
    assert found > 10


def _texts(chosen: random.Random) -> list[str]:
    return [chosen.choice(("x" * 50, "y" * 50)) for _ in range(chosen.randrange(1, 6))]


def _random_slot(chosen: random.Random, number: int) -> Slot:
    slot = Slot(number)
    slot.last_used = chosen.random() * 100
    texts = _texts(chosen)
    held = said(chat(*texts), owner=chosen.choice("kkl"))
    kind = chosen.randrange(6)
    if kind:
        slot.hold(held.chain, held.owner, prompt=9, tokens=9, said=held if kind > 1 else None)
    if kind == 4:
        coming = said(chat(*_texts(chosen)), owner=chosen.choice("kkl"))
        slot.take(coming.chain, coming.owner)
    elif kind == 5:
        slot.go_on(said(chat(*texts, *_texts(chosen)), owner=held.owner))
    return slot
