"""What slots remember of what was said in them, and when that is not enough."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.conversations.chain import NO_WISH, Chain
from gateway.conversations.keeper import Conversations
from gateway.conversations.slot import UNKNOWN, Slot
from gateway.conversations.slots import ConversationSlots
from gateway.conversations.turn import Turn, turn_of_wish
from gateway.proxy.body import serialise
from gateway.proxy.call import Outcome
from gateway.proxy.sse import Usage
from tests.conversations.test_cancelled import Alone
from tests.conversations.test_chain import chat
from tests.conversations.test_files import named
from tests.conversations.test_going_on import CHAINS
from tests.conversations.test_shelf import put
from tests.local_backends import WatchedLocal
from tests.scripted import Box

LARGE = "x" * 2**18
LEAST = 50
TOLD = Usage(70, 10, 60)


class Started(WatchedLocal):
    """One whose process could save, if it were there: nothing is sent to it here."""

    fingerprint = named("any").fingerprint


class Asking:
    """Requests of a key to a model with two slots."""

    def __init__(self, conversations: Conversations, backend: WatchedLocal) -> None:
        self.conversations = conversations
        self.backend = backend
        slots = conversations.slots_of(backend)
        assert slots is not None
        self.slots: ConversationSlots = slots

    def turn(self, *texts: str, owner: str = "k", **more: Any) -> Turn:
        body = chat(*texts, **more)
        turn = turn_of_wish(self.conversations, owner, serialise(body), 1, NO_WISH)
        turn.wish, turn.body, turn.format = None, body, "chat"
        return turn

    async def begun(self, turn: Turn) -> Slot:
        """The slot in which ``turn`` is now, which was not recognised."""
        assert not turn.go_on(self.backend)
        number = await turn.begin(self.backend, "/v1/chat/completions", Alone())
        assert number is not None
        return self.slots.all[number]

    async def asked(self, *texts: str, owner: str = "k", **more: Any) -> Slot:
        """The slot in which ``owner`` has asked this."""
        turn = self.turn(*texts, owner=owner, **more)
        slot = await self.begun(turn)
        self.end(turn)
        return slot

    def goes_on(self, turn: Turn) -> Slot | None:
        return self.slots.all[turn.named or 0] if turn.go_on(self.backend) else None

    def end(self, turn: Turn, usage: Usage | None = TOLD) -> None:
        ended = Outcome()
        ended.usage = usage
        turn.end(ended)


@pytest.fixture
async def asking(tmp_path: Path) -> AsyncIterator[Asking]:
    conversations = Conversations(tmp_path / "cache", max_size=2**30, max_age=1e9, min_tokens=LEAST)
    await conversations.open()
    box = Box(tmp_path)
    backend = Started(box.spec(parallel=2), box.environment(slot_saves=None), "a.sock")
    made = Asking(conversations, backend)
    yield made
    made.slots.end()
    for slot in made.slots.all:
        if slot.timer is not None:
            slot.timer.cancel()
    await conversations.close()


def chain_of(*texts: str, owner: str = "k", **more: Any) -> Chain:
    return CHAINS.of(chat(*texts, **more), "chat", owner)


async def test_slot_has_the_whole_conversation_after_turns_that_were_only_compared(
    asking: Asking,
) -> None:
    slot = await asking.asked(*"abc")
    for texts in ("abcde", "abcde", "abcdefg"):
        turn = asking.turn(*texts)
        assert asking.goes_on(turn) is slot
        assert slot.busy
        asking.end(turn)
        assert not slot.busy
    assert turn.base == chain_of(*"abc")
    assert slot.chain == slot.view.chain == chain_of(*"abcdefg")
    assert (slot.prompt, slot.tokens, slot.unsaved) == (70, 80, True)
    turn = asking.turn(*"abcdefgh")
    assert asking.goes_on(turn) is slot
    assert turn.base == chain_of(*"abcdefg")


async def test_others_see_what_comes_in_a_slot_at_work(asking: Asking) -> None:
    slot = await asking.asked(*"abc")
    assert asking.goes_on(asking.turn(*"abcde")) is slot
    assert slot.view == (slot.number, chain_of(*"abcde"), False, slot.last_used)
    assert asking.goes_on(asking.turn(*"abcde")) is None
    assert asking.goes_on(asking.turn(*"abcdefg")) is None


async def test_fields_that_are_no_part_of_the_prompt_may_be_others(asking: Asking) -> None:
    slot = await asking.asked(*"abc", temperature=0.1)
    for more in ({"temperature": 0.2}, {"seed": 1, "stop": ["]"]}, {}):
        turn = asking.turn(*"abcd", **more)
        assert asking.goes_on(turn) is slot
        asking.end(turn)
    assert slot.chain == chain_of(*"abcd")
    assert asking.goes_on(asking.turn(*"abcde", chat_template_kwargs={"a": 1})) is None


async def test_large_requests_are_not_remembered_but_known_of(asking: Asking) -> None:
    await asking.asked("a", LARGE)
    assert asking.goes_on(asking.turn("a", LARGE, "b")) is None
    slot = await asking.asked(*"xyz")
    turn = asking.turn(*"xyz", LARGE)
    assert asking.goes_on(turn) is slot
    asking.end(turn)
    assert slot.said is None
    assert not slot.busy
    assert slot.chain == chain_of(*"xyz", LARGE)
    assert asking.goes_on(asking.turn(*"xyz", LARGE, "z")) is None


@pytest.mark.parametrize(("saved", "goes_on"), [("abc", True), ("abx", True), ("abcd", False)])
async def test_more_of_it_that_is_saved_is_looked_at(
    asking: Asking, tmp_path: Path, saved: str, goes_on: bool
) -> None:
    slot = await asking.asked(*"abc")
    await put(asking.slots.shelf, tmp_path / "cache", "one", chain=chain_of(*saved))
    assert asking.goes_on(asking.turn(*"abcde")) is (slot if goes_on else None)


async def test_nobody_goes_on_where_it_is_being_saved(asking: Asking) -> None:
    slot = await asking.asked(*"abc")
    async with slot.alone():
        assert asking.goes_on(asking.turn(*"abcd")) is None
    assert asking.goes_on(asking.turn(*"abcd")) is slot


async def test_key_goes_on_with_nothing_of_another(asking: Asking) -> None:
    slot = await asking.asked(*"abc")
    assert asking.goes_on(asking.turn(*"abcd", owner="l")) is None
    assert asking.goes_on(asking.turn(*"ab", owner="l")) is None
    slot.have(UNKNOWN)
    assert asking.goes_on(asking.turn(*"abcd")) is None


async def test_nobody_goes_on_where_another_slot_has_or_will_have_more(asking: Asking) -> None:
    first = await asking.asked(*"abc")
    longer = asking.turn(*"abcd")
    assert asking.goes_on(longer) is first
    branch = asking.turn(*"abcx")
    other = await asking.begun(branch)
    assert other is not first
    asking.end(longer)
    assert asking.goes_on(asking.turn(*"abcxy")) is None  # that comes in the other one
    asking.end(branch)
    assert asking.goes_on(asking.turn(*"abcxy")) is other
    assert asking.goes_on(asking.turn(*"abcde")) is first


async def test_what_was_broken_off_is_not_gone_on_with_by_bytes(asking: Asking) -> None:
    slot = await asking.asked(*"abc")
    turn = asking.turn(*"abcde")
    assert asking.goes_on(turn) is slot
    asking.end(turn, None)
    assert not slot.busy
    assert slot.chain == chain_of(*"abc")
    again = asking.turn(*"abcde")
    assert await asking.begun(again) is slot
    asking.end(again)
    assert asking.goes_on(asking.turn(*"abcdef")) is slot


async def test_request_that_is_sent_once_more_is_placed_again(asking: Asking) -> None:
    slot = await asking.asked(*"abc")
    turn = asking.turn(*"abcde")
    assert asking.goes_on(turn) is slot
    asking.end(turn, None)
    assert await asking.begun(turn) is slot
    asking.end(turn)
    assert slot.chain == chain_of(*"abcde")


async def test_nothing_is_known_afterwards_of_what_is_not_to_be_saved(asking: Asking) -> None:
    slot = await asking.asked(*"abc")
    turn = asking.turn(*"abcde")
    turn.keep_nothing()
    assert not turn.go_on(asking.backend)
    number = await turn.begin(asking.backend, "/v1/chat/completions", Alone())
    asking.end(turn)
    assert number is not None
    assert asking.slots.all[number].said is None
    assert asking.slots.all[number].chain.links == ()
    assert asking.goes_on(asking.turn(*"abcdef")) in (None, slot)


TEXT = "x" * 100


@pytest.mark.parametrize(("tokens", "taken"), [(LEAST, True), (100 * LEAST, False)])
async def test_who_goes_back_takes_the_slot_if_nothing_worth_saving_is_lost(
    asking: Asking, tokens: int, taken: bool
) -> None:
    slot = await asking.asked("a", TEXT, "b")
    turn = asking.turn("a", TEXT, "b", "c", "d")
    assert asking.goes_on(turn) is slot
    asking.end(turn, Usage(tokens // 2, tokens // 2, 0))
    back = asking.turn("a", TEXT)
    assert asking.goes_on(back) is (slot if taken else None)
    if taken:
        assert back.chain == slot.coming == chain_of("a", TEXT)
        asking.end(back)
        assert slot.chain == chain_of("a", TEXT)
        assert asking.goes_on(asking.turn("a", TEXT, "e")) is slot


async def test_who_goes_back_to_what_two_slots_have_is_placed_by_its_chain(asking: Asking) -> None:
    first = asking.turn("a", TEXT, "b")
    await asking.begun(first)
    second = asking.turn("a", TEXT, "c")
    await asking.begun(second)
    asking.end(first)
    asking.end(second)
    assert asking.goes_on(asking.turn("a", TEXT)) is None
