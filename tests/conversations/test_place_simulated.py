"""Many people on few slots, answer through with the decisions alone: what has to be computed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import accumulate

import pytest

from gateway.conversations.chain import NO_CHAIN, Chain
from gateway.conversations.place import SlotView, place

LEAST = 256 * 3
SYSTEM = 900


@dataclass
class Person:
    """Somebody with conversations; ``texts``: what each message of the present one is."""

    name: str
    number: int = 0
    texts: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def chain(self) -> Chain:
        texts = ["system", *(f"{self.name}/{self.number}/{text}" for text in self.texts)]
        links = tuple("|".join(texts[:end]).encode() for end in range(1, len(texts) + 1))
        return Chain(links, (SYSTEM, *accumulate(self.sizes, initial=SYSTEM))[: len(links)])


@dataclass
class ReadAnswer:
    """Slots as they are, what is saved, and what was computed of what is new. Characters."""

    slots: list[SlotView]
    saved: set[bytes] = field(default_factory=set)
    computed: int = 0
    new: int = 0

    def ask(self, chain: Chain, new: int, now: float, busy: set[int]) -> None:
        views = [view._replace(free=view.number not in busy) for view in self.slots]
        known = [count for count, link in enumerate(chain.links, 1) if link in self.saved]
        placing = place(chain, views, max(known, default=0), LEAST, now)
        assert placing is not None
        held = views[placing.slot].chain
        if chain.size() >= LEAST:  # it is saved as soon as nobody asks
            self.saved.update(chain.links)
        there = max(known, default=0) if placing.restore else chain.common(held.links)
        self.computed += chain.size() - chain.size(there)
        self.new += new
        self.slots[placing.slot] = SlotView(placing.slot, chain, used=now)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("people", "slots"), [(10, 2), (3, 4), (10, 4), (5, 1)])
def test_little_more_is_computed_than_what_is_new(people: int, slots: int, seed: int) -> None:
    chosen = random.Random(seed)
    answer = ReadAnswer([SlotView(number, NO_CHAIN) for number in range(slots)])
    everybody = [Person(str(number)) for number in range(people)]
    for step in range(400):
        person = chosen.choice(everybody)
        if chosen.random() < 0.05:  # a conversation of its own
            person.number, person.texts, person.sizes = person.number + 1, [], []
        new = SYSTEM if not person.texts else 0
        if person.texts and chosen.random() < 0.1:  # the last question is asked in other words
            person.texts.pop()
            person.sizes.pop()
        size = int(chosen.choice((60, 300, 2000)) * (0.5 + chosen.random()))
        person.texts.append(str(step))
        person.sizes.append(size)
        busy = {n for n in range(slots) if chosen.random() < 0.4}
        if len(busy) == slots:
            busy.pop()
        answer.ask(person.chain(), new + size, 20.0 * step, busy)
    assert answer.computed <= 1.1 * answer.new
