"""The slots of one llama-server process: what is in each, who has it, and when it is saved.

What was seen of llama-server b10434, and decides how this is done: ``id_slot`` chooses the slot of
every generating route but Anthropic's messages; save, restore and a request wait until their slot
is idle.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.backends.served import Served
from gateway.backends.slots import SlotSeen
from gateway.conversations.chain import MESSAGES, Chain
from gateway.conversations.emptying import Emptying
from gateway.conversations.ended import Ended
from gateway.conversations.ending import until_idle
from gateway.conversations.noting import Noting
from gateway.conversations.place import LOSING_ALL, LOSING_SAVED, Placing
from gateway.conversations.prewarming import Prewarming
from gateway.conversations.said import Recognised
from gateway.conversations.shelf import Shelf
from gateway.conversations.slot import CHARACTERS, UNKNOWN, Slot
from gateway.conversations.slot_queue import Lendable, SlotQueue
from gateway.conversations.slot_table import SlotTable
from gateway.conversations.transfers import Transfers
from gateway.tasks import spawn
from gateway.upstream import Upstream, UpstreamError

_log = logging.getLogger(__name__)

#: Seconds after an answer until its conversation is saved, if nobody needs its slot.
_PAUSE: Final = 3.0


#: Of what a request goes on with, so many times as much may be lost for it without a look at other
#: slots: see ``LOSING_SAVED`` in :mod:`gateway.conversations.place`.
_NEXT_TO_NOTHING: Final = 20


class ConversationSlots:
    """Those of one start of ``backend``."""

    def __init__(self, backend: Served, fingerprint: str, shelf: Shelf) -> None:
        self.backend = backend
        self.starts = backend.starts
        self.model = backend.spec.name
        self.fingerprint = fingerprint
        self.shelf = shelf
        table = SlotTable(backend.spec.parallel)
        #: Its slots, by number; those that a decision looks at, and what begins with all that is
        #: in each of these.
        self.all = table.all
        self.to_look_at, self.bounds = table.to_look_at, table.bounds
        self.ready_with = table.ready_with
        self._queue = SlotQueue(
            self.all,
            to_look_at=self.to_look_at,
            saved=self._saved,
            seconds=lambda characters: self._seconds(characters // CHARACTERS),
            least=shelf.min_tokens * CHARACTERS,
            losing=self._losing,
        )
        #: Who waits for one of them.
        self.waiting = self._queue.waiting
        #: What finds out in which slots answers were that have just been completed.
        self.finding: set[asyncio.Task[None]] = set()
        self._ended = False
        self._transfers = Transfers(backend, fingerprint, shelf, lambda: self._ended)
        self.emptying = Emptying(backend, shelf)
        self.prewarming = Prewarming(self, self.all, self._queue, shelf)
        self.noting = Noting(self.model, fingerprint, len(self.all), shelf, self.prewarming)
        #: Whether there is more than one, and else that one.
        self.several = len(self.all) > 1
        self.only = None if self.several else self.all[0]

    @property
    def current(self) -> bool:
        """Return whether its process is the one that runs now."""
        return not self._ended and self.starts == self.backend.starts

    def none_longer(self, recognised: Recognised) -> bool:
        """Return whether nothing is saved that goes on with what is ``recognised``."""
        if recognised.none_longer != self.shelf.changes:
            if self.shelf.is_continued(self.fingerprint, recognised.chain):
                return False
            recognised.none_longer = self.shelf.changes
        return True

    def has_all_of(
        self, sent: bytes, body: Mapping[str, Any], owner: str, format: str
    ) -> tuple[Slot, Recognised] | None:
        """Return the slot that has all of what ``owner`` has ``sent`` in it, which was parsed to
        ``body``, and by what that is recognised, if what else is there isn't worth saving, nor
        another slot because of it; take nothing.
        """
        if (last := self.noting.recognised) is None:
            return None
        text = last.text_in(sent, body, owner, format)
        slot = self.bounds.with_all_of(text) if text else None
        if slot is None or (said := slot.ready) is None:
            return None
        known = said.recognised
        if (known.owner, known.format, known.end) != (owner, format, last.end):
            return None
        more, own = len(said.text) - len(text), len(text) - known.chain.size(known.chain.shared)
        lost = slot.tokens * more // len(said.text)
        if lost >= self.shelf.min_tokens or more > own * _NEXT_TO_NOTHING:
            return None
        return slot, known.first(len(body[MESSAGES[format]]), len(text))

    def try_acquire(self, chain: Chain, owner: str) -> Slot | None:
        """Take a slot for a request of ``owner`` in which nothing has to be done before.

        Return ``None`` where something has to be, or where it has to wait: see :meth:`acquire`.
        """
        self.prewarming.give_way()
        placing = self._queue.at_once(chain, owner)
        if placing is None or placing.restore:
            return None
        slot = self.all[placing.slot]
        if slot.locked or (slot.unsaved and self._loses(slot, placing)):
            return None
        if slot.is_anothers(owner):
            return None
        slot.take(chain, owner)
        slot.have(owner)
        return slot

    async def acquire(
        self, chain: Chain, owner: str, lease: Lendable, only: int | None = None, count: int = 1
    ) -> tuple[Slot, int | None]:
        """Have a slot for a request of ``owner`` with ``chain``, and in it as much as is known of
        that, but nothing of other keys.

        It may have to wait, see :class:`gateway.conversations.slot_queue.SlotQueue`; ``only``: for
        this slot; ``count``: so many are taken, and what it does to the others isn't known.
        Returns it, taken, and how many tokens of the prompt are in it at least (``None``: nobody
        knows). Give it back with :meth:`give_back`. It is free again if this is cancelled.
        """
        self.prewarming.give_way()
        only = None if only is None else only % len(self.all)  # as llama-server does
        given = await self._queue.slot(chain, owner, lease, only, count)
        slot, slot.others = given.slot, given.others
        try:
            for other in slot.others:
                await self.save(other, self.backend.pool, in_danger=True, taken=True)
                await self.emptying.of_others(other, owner, taken=True)
                other.have(owner)
            promised = await self._make_ready(slot, chain, given.placing)
            await self.emptying.of_others(slot, owner, taken=True)
            slot.have(owner)
            return slot, promised
        except BaseException:
            self.free(slot)
            raise

    async def _make_ready(self, slot: Slot, chain: Chain, placing: Placing) -> int | None:
        """Save and restore what has to be; return how many tokens are in it then, if known."""
        # Or somebody goes on with it: in another slot, if it is saved.
        if slot.unsaved and (self._loses(slot, placing) or self._queue.wanted(slot.chain)):
            await self.save(slot, self.backend.pool, in_danger=True, taken=True)
            self._queue.look_again()
        if placing.restore:
            name = f"restore slot {slot.number} of {self.model}"
            restoring = spawn(self._restore_for(slot, chain), name=name)
            self.shelf.keep_track(restoring)
            return await asyncio.shield(restoring)
        if slot.locked:  # its last request was given up while it was saved or restored
            async with slot.alone():
                pass
        return None

    async def _restore_for(self, slot: Slot, chain: Chain) -> int | None:
        """Restore what is saved of ``chain``; return how many tokens that are, if known.

        It goes on when its request is given up: whoever tries again finds it done.
        """
        async with slot.alone():
            found = self.shelf.longest(self.fingerprint, chain)
            taken = slot.coming is not chain  # by another one: it was given up before this began
            if taken or found is None:
                return None
            here = 0 if slot.is_anothers(slot.asker) else chain.common(slot.chain.links)
            if here >= found.links:
                return None
            try:
                if not await self._transfers.restore(slot, found.saved):
                    return None
            except UpstreamError:
                return None  # the process has gone: so will be found by who sends the request
            slot.restored = True
            whole = found.links == len(found.saved.chain.links)
            return found.saved.promised if whole else None

    def _loses(self, slot: Slot, placing: Placing) -> bool:
        """Return whether ``placing`` takes something from ``slot`` that is worth saving."""
        lost = slot.tokens * placing.loses // max(1, slot.size)
        return lost >= self.shelf.min_tokens and self.shelf.off(self.fingerprint) is None

    def _saved(self, chain: Chain) -> int:
        """Return how many links of ``chain`` can be read back."""
        found = self.shelf.longest(self.fingerprint, chain)
        return found.reach(chain) if found is not None else 0

    def free(self, slot: Slot) -> None:
        """It may be taken, and is saved if it isn't."""
        slot.chosen = False
        others, slot.others = slot.others, ()
        for other in others:
            other.forget()
        self._queue.free(slot, *others)
        if slot.unsaved or self.prewarming.waits:
            self.look_later(slot)

    def look_later(self, slot: Slot) -> None:
        """See to what is to be saved in ``slot`` and computed ahead, if nobody asks for a while."""
        if slot.timer is None and not slot.busy and self.current:
            self._save_later(slot, _PAUSE)

    def give_back(self, slot: Slot, ended: Ended) -> None:
        """Its request is over: it is free, as soon as llama-server has stopped working on that."""
        if not ended.given_up:
            self.free(slot)
            return
        name = f"wait for the end of what was given up in slot {slot.number}"
        slot.ending = spawn(self._free_when_idle(slot, ended), name=name)

    async def _free_when_idle(self, slot: Slot, ended: Ended) -> None:
        try:
            await self.until_idle(slot, ended)
        finally:
            slot.ending = None
            self.free(slot)

    async def until_idle(self, slot: Slot, ended: Ended) -> None:
        """Return when llama-server has stopped working on a request that was given up."""

        def at_work(seen: Sequence[SlotSeen]) -> bool:
            working = [one.number for one in seen if one.working]
            if not slot.chosen and not slot.others:
                return slot.number in working
            mine = 1 + len(slot.others)  # and which those are at llama-server isn't known
            return len(working) > sum(other.busy for other in self.all) - mine

        await until_idle(self.backend.slot_looks, at_work, ended)

    # --- what llama-server places itself -----------------------------------------------------

    def move(self, slot: Slot, chosen: Slot, chain: Chain) -> None:
        """The request with ``chain`` that took ``slot`` is in ``chosen``, which nobody has."""
        chosen.forget()
        chosen.take(chain, slot.asker)
        chosen.have(slot.asker)
        slot.chosen = False
        self.free(slot)

    def look_again(self) -> None:
        """More may be read back than before: whoever waits may have use for it."""
        self._queue.look_again()

    def forget_idle(self) -> None:
        """Believe nothing of slots, but of those at work what comes next.

        What isn't saved yet will be, if its size is as it was.
        """
        for slot in self.all:
            if slot.busy or not slot.unsaved:
                slot.forget()

    def suspect(self) -> None:
        """Whatever is in idle slots may be anybody's."""
        for slot in self.all:
            if not slot.busy:
                slot.have(UNKNOWN)

    def end(self) -> None:
        """Nothing that is in them now is to be saved: it fits no process that there will be."""
        self._ended = True
        self.give_up(None)

    def _seconds(self, tokens: int) -> float:
        """Return what it takes to compute so many."""
        return self.shelf.seconds(self.fingerprint, tokens)

    def _losing(self) -> float:
        saves = self.shelf.usable and not self.shelf.off(self.fingerprint)
        return LOSING_SAVED if saves else LOSING_ALL

    # --- saving ------------------------------------------------------------------------------

    def _save_later(self, slot: Slot, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        slot.timer = loop.call_later(seconds, self._begin_to_save, slot)

    def _begin_to_save(self, slot: Slot) -> None:
        slot.timer = None
        if slot.busy or not self.current:
            return
        # A timer that is let run costs less than one for every request that comes meanwhile.
        left = slot.last_used + _PAUSE - time.monotonic()
        if left > 0:
            self._save_later(slot, left)
        else:
            name = f"save slot {slot.number} of {self.model}"
            self.shelf.keep_track(spawn(self._when_idle(slot), name=name))

    async def _when_idle(self, slot: Slot) -> None:
        await self.save_idle(slot)
        await self.prewarming.run()

    async def save_opening(self, slot: Slot, chain: Chain, owner: str, tokens: int) -> None:
        """Save what has just been computed in ``slot``, which is taken, for ``owner``."""
        slot.hold(chain, owner, prompt=tokens, tokens=tokens)
        slot.computed_ahead = True
        slot.unsaved = True
        await self.save(slot, self.backend.pool, in_danger=True, taken=True)
        slot.unsaved = False

    def give_up(self, owner: str | None) -> None:
        """Save nothing of what ``owner`` has in slots now; ``None``: of anybody."""
        for slot in self.all:
            if owner in (None, slot.owner):
                slot.unsaved = False

    async def save_idle(self, slot: Slot, *, in_danger: bool = False) -> None:
        """Save what is in ``slot``, unless a request is there; ``in_danger``: else it is lost."""
        if slot.unsaved and not slot.busy and self.current:
            try:
                pool = self.backend.pool
            except UpstreamError:
                return  # it has gone meanwhile
            await self.save(slot, pool, in_danger=in_danger)

    async def leave(self, pool: Upstream, limit: float) -> None:
        """The process is about to be ended: save what isn't, for ``limit`` seconds at most.

        And never for longer than it would take to compute it again.
        """
        self._ended = True
        self.prewarming.give_way()
        for slot in self.all:
            if slot.timer is not None:
                slot.timer.cancel()
                slot.timer = None
        ending = [slot.ending for slot in self.all if slot.ending is not None]
        idle = [slot for slot in self.all if not slot.busy or slot.ending is not None]
        left = [slot for slot in idle if slot.unsaved or slot.locked]  # being saved
        left = [slot for slot in left if slot.tokens >= self.shelf.min_tokens]
        limit = min(limit, sum(self._seconds(slot.tokens) for slot in left))
        try:
            async with asyncio.timeout(limit):
                if ending:
                    await asyncio.wait(ending)
                for slot in sorted(left, key=lambda slot: -slot.tokens):
                    await self.save(slot, pool, in_danger=True)
        except TimeoutError:
            _log.info("model %s: not all of its conversations were saved", self.model)

    async def save(
        self, slot: Slot, pool: Upstream, *, in_danger: bool, taken: bool = False
    ) -> None:
        """Save what is in ``slot``, if it isn't and that is worth it.

        ``in_danger``: else it is lost. ``taken``: by the request for which this is done; never
        while another is at work there, since llama-server would wait for its end. It goes on when
        whoever waits for it goes away: llama-server does so too.
        """
        name = f"save slot {slot.number} of {self.model}"
        saving = spawn(self._save_alone(slot, pool, in_danger, taken), name=name)
        self.shelf.keep_track(saving)
        await asyncio.shield(saving)

    async def _save_alone(self, slot: Slot, pool: Upstream, in_danger: bool, taken: bool) -> None:
        async with slot.alone():
            if slot.unsaved and (taken or not slot.busy):
                await self._transfers.save(slot, pool, in_danger=in_danger)
