"""What slots remember of what was said in them, and when that is not enough."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.conversations.said import Said
from gateway.conversations.shelf import Shelf
from gateway.conversations.slot import Slot
from gateway.conversations.slots import ConversationSlots
from gateway.proxy.sse import Usage
from tests.conversations.test_chain import chat
from tests.conversations.test_files import named
from tests.conversations.test_going_on import CHAINS, said
from tests.conversations.test_shelf import put, shelf_in
from tests.local_backends import WatchedLocal
from tests.scripted import Box

LARGE = 2**18


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    async with shelf_in(tmp_path / "cache") as opened:
        yield opened


@pytest.fixture
def slots(tmp_path: Path, shelf: Shelf) -> ConversationSlots:
    box = Box(tmp_path)
    backend = WatchedLocal(box.spec(parallel=2), box.environment(slot_saves=None), "a.sock")
    return ConversationSlots(backend, named("any").fingerprint, shelf)


def asked(slots: ConversationSlots, texts: str, size: int = 100) -> Slot:
    """The slot in which somebody has asked this, for the first time."""
    made = said(chat(*texts))
    made.size = size
    slot = slots.try_acquire(made.chain, made.owner)
    assert slot is not None
    numbers: dict[str, Any] = {
        "prompt": 50,
        "cached": 0,
        "completion": 10,
        "seconds": None,
        "promised": None,
    }
    slots.noting.done(slot, made.chain, "k", said=made, **numbers)
    slots.free(slot)
    return slot


def more(texts: str, size: int = 100) -> Said:
    """What somebody says who goes on, of which no chain is known yet."""
    made = Said(CHAINS, "k")
    made.read(chat(*texts), "chat", size)
    return made


def ended(slots: ConversationSlots, slot: Slot, asking: Said) -> None:
    slots.went_on(slot, asking, Usage(70, 10, 60), None)
    assert not slot.busy


async def test_slot_has_the_whole_conversation_after_turns_that_were_only_compared(
    slots: ConversationSlots,
) -> None:
    slot = asked(slots, "abc")
    for texts in ("abcde", "abcde", "abcdefg"):
        asking = more(texts)
        assert slots.try_go_on(asking) is slot
        assert slot.busy
        ended(slots, slot, asking)
    assert asking.base == said(chat(*"abc")).chain
    assert slot.chain == slot.view.chain == said(chat(*"abcdefg")).chain
    assert (slot.prompt, slot.tokens, slot.unsaved) == (70, 80, True)


async def test_others_see_what_comes_in_a_slot_at_work(slots: ConversationSlots) -> None:
    slot = asked(slots, "abc")
    assert slots.try_go_on(more("abcde")) is slot
    assert slot.view == (slot.number, said(chat(*"abcde")).chain, False, slot.last_used)


async def test_large_requests_are_not_remembered(slots: ConversationSlots) -> None:
    asked(slots, "abc", LARGE)
    assert slots.try_go_on(more("abcd")) is None
    slot = asked(slots, "xyz")
    asking = more("xyzxy", LARGE)
    assert slots.try_go_on(asking) is slot
    ended(slots, slot, asking)
    assert slot.said is None
    assert slot.chain == said(chat(*"xyzxy")).chain
    assert slots.try_go_on(more("xyzxyz")) is None


@pytest.mark.parametrize(("saved", "goes_on"), [("abc", True), ("abx", True), ("abcd", False)])
async def test_more_of_it_that_is_saved_is_looked_at(
    slots: ConversationSlots, shelf: Shelf, tmp_path: Path, saved: str, goes_on: bool
) -> None:
    slot = asked(slots, "abc")
    await put(shelf, tmp_path / "cache", "one", chain=said(chat(*saved)).chain)
    assert slots.try_go_on(more("abcde")) is (slot if goes_on else None)


async def test_nobody_goes_on_where_others_wait_or_it_is_being_saved(
    slots: ConversationSlots,
) -> None:
    slot = asked(slots, "abc")
    async with slot.lock:
        assert slots.try_go_on(more("abcd")) is None
    assert slots.try_go_on(more("abcd")) is slot
