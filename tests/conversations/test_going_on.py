"""Which slot a request goes on in, by its bytes: the same as by its chain, or none."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.conversations.chain import Chains
from gateway.conversations.going_on import ANYTHING, NOTHING, Bounds
from gateway.conversations.place import place, spared_by_waiting
from gateway.conversations.said import Said, end_of
from gateway.conversations.slot import Slot
from gateway.conversations.slot_table import SlotTable
from gateway.proxy.body import serialise
from tests.conversations.test_chain import chat

CHAINS = Chains()
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"required": ["a"]}}}]


class Maker:
    chains = CHAINS


def asks(sent: bytes, owner: str = "k", format: str = "chat") -> Said:
    made = Said()
    made.within, made.owner, made.sent, made.format = Maker(), owner, sent, format
    return made


def said(body: dict[str, Any], owner: str = "k", format: str = "chat") -> Said:
    """What ``body`` says, with its chain, as it is remembered."""
    made = asks(orjson.dumps(body), owner, format)
    made.know(CHAINS.of(body, format, owner))
    assert made.remember(body)
    return made


@dataclass(eq=False)
class Held:
    """A slot, as far as bounds look at it."""

    bound: bytes


class Several:
    """Bounds, which change as those of slots do."""

    def __init__(self, *bounds: bytes) -> None:
        self.slots = [Held(bound) for bound in bounds]
        self.bounds = Bounds(self.slots)

    def find(self, sent: bytes) -> int | None:
        found = self.bounds.find(sent)
        return None if found is None else self.slots.index(found)

    def with_all_of(self, text: bytes) -> int | None:
        found = self.bounds.with_all_of(text)
        return None if found is None else self.slots.index(found)

    def grow(self, number: int, bound: bytes) -> None:
        """Let that one be longer, as a request that goes on does."""
        if self.bounds.alike and self.slots[number].bound != bound:
            self.bounds.changed()
        self.slots[number].bound = bound

    def change(self, number: int, bound: bytes) -> None:
        self.slots[number].bound = bound
        self.bounds.changed()


def where_it_goes_on(bounds: list[bytes], sent: bytes) -> bytes | None:
    """The longest beginning of what is ``sent``, unless another one goes on from there."""
    if b"" in bounds:
        return None
    longest = max((bound for bound in bounds if sent.startswith(bound)), key=len, default=None)
    if longest is None or any(one != longest and one.startswith(longest) for one in bounds):
        return None
    return longest


# --- bounds --------------------------------------------------------------------------------


_TEXTS = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=5)


def _check(several: Several, sent: bytes) -> int | None:
    """See that what goes on is found where it should be; return where that is."""
    bounds = [slot.bound for slot in several.slots]
    found = several.find(sent)
    expected = where_it_goes_on(bounds, sent)
    assert (None if found is None else bounds[found]) == expected
    return found


@given(_TEXTS, st.text("ab", max_size=6))
def test_place_is_that_of_the_longest_beginning_from_which_none_goes_on(
    bounds: list[str], sent: str
) -> None:
    _check(Several(*[bound.encode() for bound in bounds]), sent.encode())


@given(st.data())
def test_place_is_the_same_while_bounds_only_get_longer(data: st.DataObject) -> None:
    """They aren't put in order for that, where none begins another."""
    bounds = data.draw(st.lists(st.sampled_from(["a", "b", "ab", "ba", "bb", "\0", ""])))
    several = Several(*[bound.encode() for bound in bounds])
    for _ in range(6):
        sent = data.draw(st.text("ab", min_size=1, max_size=8)).encode()
        found, changes = _check(several, sent), data.draw(st.booleans())
        if found is not None:
            several.grow(found, sent)
        elif changes and bounds:
            several.change(data.draw(st.integers(0, len(bounds) - 1)), sent)


@given(_TEXTS, st.text("ab", min_size=1))
def test_place_with_all_of_a_text_is_the_only_one(bounds: list[str], text: str) -> None:
    several, asked = [bound.encode() for bound in bounds], text.encode()
    those = [number for number, bound in enumerate(several) if bound.startswith(asked)]
    if asked in several:
        assert Several(*several).with_all_of(asked) is None  # it goes on there
    else:
        expected = those[0] if len(those) == 1 else None
        assert Several(*several).with_all_of(asked) == expected


def test_nothing_is_said_beside_a_slot_of_which_nobody_knows() -> None:
    assert Several(b"ab", NOTHING).find(b"abc") == 0
    assert Several(b"ab", ANYTHING).find(b"abc") is None
    assert Several(b"ab", ANYTHING).with_all_of(b"a") is None
    assert Several(NOTHING, NOTHING).find(b"abc") is None


def test_bounds_change_and_come_between() -> None:
    several = Several(b"b", NOTHING, b"a")
    assert several.find(b"cc") is None
    several.change(1, b"c")
    several.change(0, b"bb")
    assert [several.find(sent) for sent in (b"bbb", b"cc", b"aa", b"b")] == [0, 1, 2, None]


# --- the end of the messages ---------------------------------------------------------------

_BEHIND: list[dict[str, Any]] = [
    {},
    {"temperature": 0.7},
    {"stop": ["]", '"]}'], "tools": TOOLS},
    {"tools": TOOLS, "tool_choice": "auto", "seed": 2},
    {"metadata": {"messages": [[], [{}]], "stop": []}},
]
_WRITERS = (
    serialise,
    lambda body: json.dumps(body).encode(),
    lambda body: json.dumps(body, indent=1).encode() + b"\n",
)


@pytest.mark.parametrize("behind", _BEHIND)
@pytest.mark.parametrize("writer", range(len(_WRITERS)))
def test_end_of_messages_is_found_however_they_are_written(
    behind: dict[str, Any], writer: int
) -> None:
    """Also where what is said looks like an end."""
    said_ = ['],"temperature":0.7}', "]}", '"]', 'x\\"],"stop":["]']
    body = {"model": "m", **chat(*said_), **behind}
    sent = _WRITERS[writer](body)
    end = end_of(sent, body, "messages")
    assert end is not None
    assert end.startswith(b"]")
    text = sent[: -len(end)]
    assert orjson.loads(text + b"]}")["messages"] == body["messages"]
    assert [*orjson.loads(b'{"m":[' + end)][1:] == [*behind]


def test_end_that_isnt_found_easily_is_none() -> None:
    body = {**chat("a"), "stop": [["]"]] * 100}
    assert end_of(json.dumps(body).encode(), body, "messages") is None
    body = {**chat("a"), "seed": 2**70}
    assert end_of(json.dumps(body).encode(), body, "messages") is None


# --- what goes on --------------------------------------------------------------------------


def goes_on(earlier: Said, body: dict[str, Any], sent: bytes | None = None) -> bool:
    """Whether ``body`` is taken for one that goes on with ``earlier``, as a turn sees it."""
    sent = serialise(body) if sent is None else sent
    if Several(earlier.text).find(sent) is None:
        return False
    known = earlier.recognised
    if len(body) == known.fields and sent.endswith(known.end):
        return True
    return known.with_end(sent, body) is not None


HELD = chat("a", "b", "c")


@pytest.mark.parametrize("texts", ["abc", "abcd", "abcde"])
@pytest.mark.parametrize("behind", _BEHIND)
def test_what_repeats_all_of_it_goes_on(texts: str, behind: dict[str, Any]) -> None:
    assert goes_on(said({**HELD, **behind}), {**chat(*texts), **behind})


@pytest.mark.parametrize("more", [{"temperature": 0.5}, {"seed": 1, "stop": ["x"]}])
def test_fields_that_are_no_part_of_the_prompt_may_be_others(more: dict[str, Any]) -> None:
    assert goes_on(said(HELD), chat(*"abcd", **more))
    assert goes_on(said({**HELD, **more}), chat(*"abcd"))


@pytest.mark.parametrize(
    "other",
    [
        chat("a", "b", "c", "d", tools=TOOLS),
        chat("a", "b", "c", "d", chat_template_kwargs={"enable_thinking": False}),
        chat("a", "b"),
        chat("a", "x", "c", "d"),
        chat("a", "b", "x", "d"),
        {"model": "other", **chat("a", "b", "c", "d")},
    ],
)
def test_what_makes_another_prompt_doesnt(other: dict[str, Any]) -> None:
    assert not goes_on(said(HELD), other)


def test_what_only_ends_alike_makes_another_prompt() -> None:
    """Its last bytes are those of the earlier one, but stand for other fields."""
    earlier = said(HELD)
    assert earlier.recognised.end == b"]}"
    body = {**chat(*"abcd"), "tools": []}
    assert serialise(body).endswith(b"]}")
    assert not goes_on(earlier, body)


# --- chains --------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"tools": TOOLS}])
def test_chain_is_made_of_what_is_new_and_is_the_same(more: dict[str, Any]) -> None:
    first = said(chat(*"abc", **more))
    body = chat(*"abcdefg", **more)
    later = asks(serialise(body))
    later.follow(first.recognised)
    assert later.base == first.chain
    assert later.more > 0
    assert later.chain == Chains().of(body, "chat", "k")
    assert later.base == later.chain
    assert later.more == 0
    assert later.recognised.counted == 7


def test_beginning_of_what_is_known_has_its_chain() -> None:
    known = said(chat(*"abcdefg")).recognised
    assert known.first(3, 10).chain == said(HELD).chain
    assert known.first(8, 10) is known


@pytest.mark.parametrize("seed", range(5))
def test_it_is_where_it_would_go_by_its_chain(seed: int) -> None:
    chosen = random.Random(seed)
    found = 0
    for _ in range(600):
        table = SlotTable(chosen.choice((1, 1, 2, 4)))
        for slot in table.all:
            _fill(slot, chosen)
        body, owner = chat(*_texts(chosen)), chosen.choice("kkl")
        asked = CHAINS.of(body, "chat", owner)
        slot = table.bounds.find(serialise(body))
        if slot is None or slot.ready is None or slot.ready.owner != owner:
            continue
        found += 1
        views = [each.view for each in table.all]
        placing = place(asked, views, 0, 1, 100.0)
        assert placing is not None
        assert placing.loses == 0
        assert not placing.restore
        assert views[placing.slot].chain == slot.view.chain  # there may be two of them
        assert spared_by_waiting(asked, views, 0, placing, 100.0) == 0
        seen = [each.seen_with(asked, owner) for each in table.all]
        assert place(asked, seen, 0, 1, 100.0) == placing
    assert found > 10


@pytest.mark.parametrize("seed", range(5))
def test_what_has_the_same_in_it_is_where_it_would_go_by_its_chain(seed: int) -> None:
    chosen = random.Random(seed)
    found = 0
    for _ in range(2000):
        table = SlotTable(chosen.choice((2, 3, 4)))
        bodies = [chat(*_texts(chosen)) for _ in range(2)]
        for slot in table.all:
            _fill(slot, chosen, bodies)
        body, owner = chosen.choice(bodies), chosen.choice("kkkl")
        asked = CHAINS.of(body, "chat", owner)
        table.bounds.find(serialise(body))
        slot = table.ready_with(serialise(body), owner)
        if slot is None:
            continue
        found += 1
        assert not slot.busy
        views = [each.view_of(owner) for each in table.all]
        placing = place(asked, views, 0, 1, 100.0)
        assert placing is not None
        assert placing.loses == 0
        assert not placing.restore
        assert views[placing.slot].chain == slot.view_of(owner).chain
        assert spared_by_waiting(asked, views, 0, placing, 100.0) == 0
    assert found > 100


def _texts(chosen: random.Random) -> list[str]:
    return [chosen.choice(("x" * 50, "y" * 50)) for _ in range(chosen.randrange(1, 6))]


def _fill(slot: Slot, chosen: random.Random, bodies: Sequence[dict[str, Any]] = ()) -> None:
    """Let ``slot`` be used, or not, in any of the ways that there are: mostly by ``bodies``."""
    if (kind := chosen.randrange(5)) == 0:
        return
    slot.take(CHAINS.of(chat("z"), "chat", "k"), "k")
    slot.last_used = chosen.random() * 100
    body = chosen.choice(bodies) if bodies and chosen.random() < 0.8 else chat(*_texts(chosen))
    held = said(body, owner=chosen.choice("kkl"))
    remembered = held if chosen.random() < 0.8 else None
    slot.hold(held.chain, held.owner, prompt=9, tokens=9, said=remembered, bound=held.text)
    slot.have(held.owner)
    slot.release()
    if kind == 4:
        coming = chosen.choice(bodies) if bodies else chat(*_texts(chosen))
        slot.take(CHAINS.of(coming, "chat", "k"), "k")
        slot.show(serialise(coming))


@pytest.mark.parametrize("seed", range(3))
def test_slot_whose_later_messages_werent_hashed_is_seen_as_it_is(seed: int) -> None:
    """As far as a decision needs: what it has in common with a chain, and what it would lose."""
    chosen = random.Random(seed)
    for _ in range(300):
        texts = _texts(chosen)
        first = said(chat(*texts[: chosen.randrange(1, len(texts) + 1)]))
        slot = Slot(0)
        later = asks(serialise(body := chat(*texts)))
        later.follow(first.recognised)
        later.text, later.sent = later.sent[: -len(first.recognised.end)], b""
        slot.hold(NO_LINKS, "k", prompt=9, tokens=9, said=later)
        asked = CHAINS.of(chat(*_texts(chosen)), "chat", "k")
        seen = slot.seen_with(asked, "k").chain
        whole = CHAINS.of(body, "chat", "k")
        assert asked.common(seen.links) == asked.common(whole.links)
        assert seen.size() >= whole.size()
        assert seen.size() <= whole.size() + 50 * len(texts)


NO_LINKS = CHAINS.of({}, "chat", "k")
