"""Which slots a decision looks at: enough for it to be the same as if it looked at all."""

from __future__ import annotations

import random

import pytest

from gateway.conversations.place import place
from gateway.conversations.slot_table import SlotTable
from tests.conversations.test_place import chain

ALL = 256


def test_one_slot_is_looked_at_until_it_is_used() -> None:
    table = SlotTable(ALL)
    assert [slot.number for slot in table.to_look_at] == [0]
    table.all[0].take(chain("a"), "k")
    assert [slot.number for slot in table.to_look_at] == [0, 1]
    table.all[0].take(chain("b"), "k")
    assert [slot.number for slot in table.to_look_at] == [0, 1]


def test_slot_that_was_asked_for_by_its_number_is_looked_at_as_well() -> None:
    table = SlotTable(ALL)
    for number in (7, 0, 1):
        table.all[number].take(chain("a"), "k")
    assert [slot.number for slot in table.to_look_at] == [7, 0, 1, 2]


def test_all_are_looked_at_when_all_were_used() -> None:
    table = SlotTable(3)
    for number in (2, 0, 1):
        table.all[number].take(chain("a"), "k")
    assert {slot.number for slot in table.to_look_at} == {0, 1, 2}


@pytest.mark.parametrize("seed", range(3))
def test_place_is_as_good_as_if_all_were_looked_at(seed: int) -> None:
    chosen = random.Random(seed)
    table = SlotTable(ALL)
    for now in range(1, 200):
        asked = chain("".join(chosen.choices("ab", k=chosen.randrange(1, 6))))
        views = [slot.view for slot in table.to_look_at]
        found = place(asked, views, 0, 1, float(now))
        best = place(asked, [slot.view for slot in table.all], 0, 1, float(now))
        assert found is not None
        assert best is not None
        slot, other = table.all[found.slot], table.all[best.slot]
        assert (slot.chain, slot.last_used) == (other.chain, other.last_used)
        slot.take(asked, "k")
        slot.hold(asked, "k")
        slot.last_used = float(now)
        if chosen.random() < 0.6:
            slot.release()
    assert len(table.to_look_at) < ALL
