"""Who gets which slot, and who waits for it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

import pytest

from gateway.conversations.chain import Chain
from gateway.conversations.place import LOSING_SAVED
from gateway.conversations.slot import Slot
from gateway.conversations.slot_queue import Given, SlotQueue
from gateway.tasks import cancel_and_wait, spawn
from tests.conversations.test_place import chain

LEAST = 1500


class Lease:
    """A lease that counts; ``lent`` is what others see of it."""

    def __init__(self) -> None:
        self.lent = False
        self.times = 0

    def lend(self) -> None:
        self.times += not self.lent
        self.lent = True

    def reclaim(self) -> None:
        self.lent = False


class Bench:
    """Slots and the line before them."""

    def __init__(
        self, count: int, *, seconds: float = 60.0, saved: Callable[[Chain], int] = lambda _: 0
    ) -> None:
        self.slots = [Slot(number) for number in range(count)]
        self.asked: list[int] = []

        def patience(characters: int) -> float:
            self.asked.append(characters)
            return seconds

        self.queue = SlotQueue(
            self.slots,
            saved=saved,
            seconds=patience,
            least=LEAST,
            losing=lambda: LOSING_SAVED,
        )

    async def take(self, text: str, lease: Lease | None = None) -> int:
        return (await self.queue.slot(chain(text), "", lease or Lease())).slot.number

    def ask(self, text: str, lease: Lease | None = None) -> asyncio.Task[int]:
        return spawn(self.take(text, lease), name=text)

    def end(self, number: int) -> None:
        slot = self.slots[number]
        slot.hold(slot.coming, "")
        self.queue.free(slot)


async def turn() -> None:
    """Let every task go as far as it goes."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_request_waits_for_the_slot_that_is_at_work_on_its_conversation() -> None:
    bench = Bench(2)
    assert await bench.take("abc") == 0
    following = bench.ask("abcd")
    await turn()
    assert not following.done()
    assert bench.asked == [3000]
    bench.end(0)
    assert await following == 0


async def test_it_goes_elsewhere_when_that_would_have_taken_as_long() -> None:
    bench = Bench(2, seconds=0.01)
    assert await bench.take("abc") == 0
    assert await bench.take("abcd") == 1


async def test_little_in_common_is_not_waited_for() -> None:
    bench = Bench(2)
    assert await bench.take("abc") == 0
    assert await bench.take("axy") == 1


async def test_nobody_waits_for_a_slot_only_since_another_one_loses_something() -> None:
    bench = Bench(2)
    assert await bench.take("q") == 0
    assert await bench.take("abcdefghijklmnopqrstuvwxyz") == 1
    bench.end(1)
    assert await bench.take("xy") == 1


async def test_what_can_be_read_back_is_waited_for_no_longer_than_that_takes() -> None:
    text = "abcdefghij" * 10
    bench = Bench(2, saved=lambda chain: len(chain.links))
    assert await bench.take(text) == 0
    following = bench.ask(text + "k")
    await turn()
    assert bench.asked == [100_000 - 0.95 * 101_000]
    await cancel_and_wait(following)
    assert await bench.take(text[:20]) == 1, "reading back is as good as nothing"


async def test_what_is_saved_meanwhile_ends_the_wait() -> None:
    saved: list[int] = [0]
    bench = Bench(2, saved=lambda chain: saved[0])
    assert await bench.take("abc") == 0
    following = bench.ask("abcd")
    await turn()
    saved[0] = 3
    bench.queue.look_again()
    assert await following == 1


async def test_slot_that_becomes_free_goes_to_who_has_waited_and_not_to_a_newcomer() -> None:
    bench = Bench(2)
    assert await bench.take("abc") == 0
    following = bench.ask("abcd")
    await turn()
    bench.end(0)
    assert await bench.take("q") == 1
    assert await following == 0


async def test_several_that_follow_come_one_after_the_other() -> None:
    bench = Bench(3)
    assert await bench.take("abc") == 0
    following = [bench.ask("abc" + letter) for letter in "xyz"]
    for expected in following:
        await turn()
        assert [task.done() for task in following].count(True) == following.index(expected)
        bench.end(0)
        assert await expected == 0


async def test_who_finds_no_slot_free_is_the_first_to_get_one() -> None:
    bench = Bench(2)
    assert [await bench.take("q"), await bench.take("r")] == [0, 1]
    waiting = [bench.ask("s"), bench.ask("t")]
    await turn()
    bench.end(1)
    assert await waiting[0] == 1
    bench.end(0)
    assert await waiting[1] == 0


async def test_another_request_may_have_the_lease_of_who_waits_by_choice() -> None:
    bench, lease = Bench(2), Lease()
    assert await bench.take("abc") == 0
    following = bench.ask("abcd", lease)
    await turn()
    assert lease.lent
    assert await bench.take("q") == 1
    bench.end(0)
    await following
    assert (lease.lent, lease.times) == (False, 1)


async def test_lease_of_who_has_waited_long_enough_is_its_own_again() -> None:
    bench, lease = Bench(2, seconds=0.01), Lease()
    assert await bench.take("abc") == 0
    following = bench.ask("abcd", lease)
    await turn()
    assert await bench.take("q") == 1
    async with asyncio.timeout(20):
        while lease.lent:
            await asyncio.sleep(0.001)
    assert not following.done()
    later = bench.ask("r")
    await turn()
    bench.end(1)
    assert await following == 1, "before who has come later"
    bench.end(0)
    assert await later == 0


@pytest.mark.parametrize("given", [False, True])
async def test_who_hangs_up_while_waiting_leaves_nothing_behind(given: bool) -> None:
    bench, lease = Bench(2), Lease()
    assert await bench.take("abc") == 0
    following = bench.ask("abcd", lease)
    behind = bench.ask("abce")
    await turn()
    if given:
        bench.end(0)  # in the very moment in which it goes
    await cancel_and_wait(following)
    assert not lease.lent
    if not given:
        bench.end(0)
    assert await behind == 0
    bench.end(0)
    assert len(bench.queue) == 0
    assert not any(slot.busy for slot in bench.slots)


async def test_who_names_its_slot_waits_for_that_one() -> None:
    bench = Bench(2)
    assert await bench.take("q") == 0
    naming = spawn(bench.queue.slot(chain("r"), "", Lease(), only=0), name="names its slot")
    await turn()
    assert not naming.done()
    bench.end(0)
    assert (await naming).slot.number == 0


async def test_who_needs_several_slots_has_them_at_once_and_is_not_overtaken() -> None:
    bench = Bench(3)
    assert [await bench.take("q"), await bench.take("r")] == [0, 1]
    two = spawn(bench.queue.slot(chain("s"), "", Lease(), count=2), name="needs two")
    await turn()
    behind = bench.ask("t")
    await turn()
    assert not behind.done(), "though one is free"
    bench.end(1)
    given = await two
    assert {given.slot.number, *(other.number for other in given.others)} == {1, 2}
    bench.end(0)
    assert await behind == 0
    bench.queue.free(given.slot, *given.others)
    assert [slot.busy for slot in bench.slots] == [True, False, False]


async def test_nobody_is_held_up_by_who_needed_several_slots_and_has_gone() -> None:
    bench = Bench(2)
    assert await bench.take("q") == 0
    two = spawn(bench.queue.slot(chain("s"), "", Lease(), count=2), name="needs two")
    await turn()
    behind = bench.ask("t")
    await turn()
    await cancel_and_wait(two)
    assert await behind == 1


async def test_who_needs_more_slots_than_there_are_has_all() -> None:
    bench = Bench(2)
    given = await bench.queue.slot(chain("s"), "", Lease(), count=9)
    assert len(given.others) == 1
    assert all(slot.busy for slot in bench.slots)


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_comes_and_goes_everybody_is_served(seed: int) -> None:
    """Random requests, some of which hang up: no slot is given twice, none stays unused."""
    chosen = random.Random(seed)
    bench = Bench(chosen.randrange(1, 5), seconds=chosen.choice((0.001, 0.01, 60.0)))
    at_work: dict[int, str] = {}
    served: list[str] = []

    async def request(name: str) -> None:
        text = chosen.choice(("abc", "abd", "xyz", "q")) + chosen.choice(("", "m", "n")) * 2
        count = chosen.choice((1, 1, 1, 2, 3))
        given: Given[Slot] = await bench.queue.slot(chain(text), "", Lease(), count=count)
        numbers = [given.slot.number, *(other.number for other in given.others)]
        assert len(numbers) == min(count, len(bench.slots))
        assert not set(numbers) & set(at_work)
        at_work.update(dict.fromkeys(numbers, name))
        try:
            for _ in range(chosen.randrange(1, 20)):
                await asyncio.sleep(chosen.choice((0, 0.0005)))
            served.append(name)
        finally:
            for number in numbers:
                del at_work[number]
                bench.end(number)

    tasks: list[asyncio.Task[None]] = []
    gone = 0
    for count in range(60):
        tasks.append(spawn(request(str(count)), name=str(count)))
        await asyncio.sleep(chosen.choice((0, 0, 0.001)))
        if chosen.random() < 0.2 and not (leaves := chosen.choice(tasks)).done():
            leaves.cancel()
            gone += 1
    async with asyncio.timeout(30):
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
    assert len(served) >= 60 - gone
    assert len(bench.queue) == 0
    assert not any(slot.busy for slot in bench.slots)
