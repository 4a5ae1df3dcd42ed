"""Which slot a request gets, and who waits for one: those of one llama-server.

A request whose conversation is in a slot that is at work waits for that slot, at most for as long
as it would take to compute elsewhere what is in it: so it never takes more than twice as long as
with the better of the two choices, whatever the answer before it takes. Its lease is another
request's meanwhile. Who finds no slot free is the first to get one; who needs several has them all
at once, and lets nobody overtake meanwhile. A slot that becomes free is
given away at once, in the order in which requests have come.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from gateway.conversations.chain import NO_CHAIN, Chain
from gateway.conversations.place import Placing, SlotView, place, spared_by_waiting


class QueuedSlot(Protocol):
    """A slot that requests queue for.

    ``view``: it as a decision sees it; it is used at a moment of the monotonic clock.
    """

    @property
    def view(self) -> SlotView: ...

    def seen_with(self, chain: Chain, owner: str, /) -> SlotView:
        """Return it as a decision about ``chain`` of the key ``owner`` sees it."""

    def take(self, chain: Chain, owner: str, /) -> None:
        """Be busy with a request of ``owner`` with ``chain``."""

    def release(self) -> None:
        """Be busy no more."""


class Lendable(Protocol):
    """The right to use a slot, which another request may have for a while."""

    def lend(self) -> None:
        """Let another request have it; harmless if that is so."""

    def reclaim(self) -> None:
        """Let nobody else have it any more; harmless if nobody may."""


SlotT = TypeVar("SlotT", bound=QueuedSlot)


class Given(NamedTuple, Generic[SlotT]):
    """A slot that has been taken, and what is to be done there; ``others`` were taken with it."""

    slot: SlotT
    placing: Placing
    others: tuple[SlotT, ...] = ()


class _SlotWaiter(Generic[SlotT]):
    """A request that waits for ``count`` slots. ``only``: the one slot that it may have."""

    def __init__(
        self, chain: Chain, owner: str, lease: Lendable, only: int | None, count: int
    ) -> None:
        self.chain, self.owner, self.lease = chain, owner, lease
        self.only, self.count = only, count
        self.given: asyncio.Future[Given[SlotT]] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.TimerHandle | None = None
        self.patient = count == 1


class SlotQueue(Generic[SlotT]):
    """A queue before the ``slots`` of one process. ``to_look_at``: one of those that are alike is
    enough there; all of them by default.

    ``saved`` returns how many links of a chain can be read back, ``seconds`` how long it takes to
    compute so many characters; for less than ``least`` characters nobody waits. ``losing`` returns
    what it costs to lose what is in a slot: see :func:`~gateway.conversations.place.place`.
    """

    def __init__(
        self,
        slots: Sequence[SlotT],
        *,
        saved: Callable[[Chain], int],
        seconds: Callable[[int], float],
        least: int,
        losing: Callable[[], float],
        to_look_at: Sequence[SlotT] | None = None,
    ) -> None:
        self._slots = slots
        self._to_look_at = slots if to_look_at is None else to_look_at
        self._saved = saved
        self._seconds = seconds
        self._least = least
        self._losing = losing
        #: Who waits, the first of them first.
        self.waiting: list[_SlotWaiter[SlotT]] = []

    def __len__(self) -> int:
        return len(self.waiting)

    async def slot(
        self, chain: Chain, owner: str, lease: Lendable, only: int | None = None, count: int = 1
    ) -> Given[SlotT]:
        """Have a slot for a request of ``owner`` with ``chain``; give it back with :meth:`free`.

        ``only``: it may have no other slot than this. ``count``: it needs so many, as far as there
        are that many. Who is cancelled leaves nothing behind.
        """
        count = min(count, len(self._slots))
        held_up = any(before.count > 1 for before in self.waiting)
        found = 0 if held_up else self._take(chain, owner, only, count, patient=count == 1)
        if isinstance(found, Given):
            return found
        waiting = _SlotWaiter[SlotT](chain, owner, lease, only, count)
        if not held_up:
            self._put_off(waiting, found)
        self.waiting.append(waiting)
        try:
            await asyncio.wait([waiting.given])
            return waiting.given.result()
        except asyncio.CancelledError:
            # It may have been given in the very moment in which its client went.
            if waiting.given.done():
                given = waiting.given.result()
                self.free(given.slot, *given.others)
            raise
        finally:
            if waiting in self.waiting:
                self.waiting.remove(waiting)
                self.look_again()  # who came behind it may have been held up by it
            self._settle_down(waiting)

    def at_once(self, chain: Chain, owner: str) -> Placing | None:
        """Return where a request goes that comes now, if it waits for nothing; take nothing."""
        if self.waiting:
            return None
        found = self._find(chain, owner, None, 1, patient=True)
        return found if isinstance(found, Placing) else None

    def free(self, *slots: SlotT) -> None:
        """``slots`` are free again: whoever has waited for one has it now."""
        for slot in slots:
            slot.release()
        if self.waiting:
            self.look_again()

    def look_again(self) -> None:
        """Something has changed: more may be read back, or a slot is free."""
        for waiting in tuple(self.waiting):
            if (given := self._choose(waiting)) is not None:
                self.waiting.remove(waiting)
                waiting.given.set_result(given)
            elif waiting.count > 1:
                break

    def wanted(self, chain: Chain) -> bool:
        """Return whether somebody waits who goes on with ``chain``, or a good part of it."""
        return any(
            chain.size(chain.common(waiting.chain.links)) >= self._least for waiting in self.waiting
        )

    def _choose(self, waiting: _SlotWaiter[SlotT]) -> Given[SlotT] | None:
        """Return the slot that it gets now, taken; ``None``: it waits."""
        found = self._take(
            waiting.chain, waiting.owner, waiting.only, waiting.count, patient=waiting.patient
        )
        if isinstance(found, Given):
            self._settle_down(waiting)
            return found
        self._put_off(waiting, found)
        return None

    def _put_off(self, waiting: _SlotWaiter[SlotT], spared: int) -> None:
        """Let it wait: to be ``spared`` so much, or with 0 because nothing is free."""
        if spared:
            self._wait(waiting, spared)
        elif waiting.only is not None:
            waiting.lease.lend()  # any other slot is for others

    def _take(
        self, chain: Chain, owner: str, only: int | None, count: int, *, patient: bool
    ) -> Given[SlotT] | int:
        """Return the slot for such a request, taken, or what :meth:`_find` returns without one."""
        found = self._find(chain, owner, only, count, patient=patient)
        if not isinstance(found, Placing):
            return found
        slot = self._slots[found.slot]
        slot.take(chain, owner)
        others: tuple[SlotT, ...] = ()
        if count > 1:
            others = tuple([other for other in self._slots if other.view.free][: count - 1])
            for other in others:
                other.take(NO_CHAIN, owner)
        return Given(slot, found, others)

    def _find(
        self, chain: Chain, owner: str, only: int | None, count: int, *, patient: bool
    ) -> Placing | int:
        """Return where such a request goes; or what it is spared by waiting for a better slot, in
        characters; 0 where none is free.
        """
        if count > 1 and sum(slot.view.free for slot in self._slots) < count:
            return 0
        slots = self._to_look_at if only is None else self._slots[only : only + 1]
        among = [slot.seen_with(chain, owner) for slot in slots]
        now = time.monotonic()
        saved = self._saved(chain) if chain.links else 0
        placing = place(chain, among, saved, self._least, now, self._losing())
        if placing is None:
            return 0
        if patient and (spared := self._spared(chain, among, saved, placing, now)):
            return spared
        return placing

    def _spared(
        self, chain: Chain, views: list[SlotView], saved: int, placing: Placing, now: float
    ) -> int:
        """Return what it is spared by waiting for a better slot, if that is worth it; or 0."""
        if not chain.links or all(view.free for view in views):
            return 0
        spared = spared_by_waiting(chain, views, saved, placing, now, self._losing())
        return spared if spared >= max(1, self._least) else 0

    def _wait(self, waiting: _SlotWaiter[SlotT], spared: int) -> None:
        """Wait, though a slot is free."""
        if waiting.timer is None:
            loop = asyncio.get_running_loop()
            waiting.timer = loop.call_later(self._seconds(spared), self._lose_patience, waiting)
        waiting.lease.lend()

    def _lose_patience(self, waiting: _SlotWaiter[SlotT]) -> None:
        waiting.patient = False
        waiting.lease.reclaim()
        self.look_again()

    def _settle_down(self, waiting: _SlotWaiter[SlotT]) -> None:
        waiting.lease.reclaim()
        if waiting.timer is not None:
            waiting.timer.cancel()
            waiting.timer = None
