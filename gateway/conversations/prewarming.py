"""Computes what conversations begin with, before it is asked for again, and has it saved.

That happens once for each personality, and for tools that come again and again, while nobody asks
anything of the model. From then on the file is read back for the first question of every
conversation, also right after a load. A request that comes meanwhile has it broken off; it is done
the next time that nobody asks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

from gateway.backends.served import Served
from gateway.bounded_cache import BoundedCache
from gateway.conversations.chain import Chain
from gateway.conversations.emptying import Emptying
from gateway.conversations.index import Saved
from gateway.conversations.shared import SHARED, SharedPrefix
from gateway.conversations.shares import MOST_WITH_TOOLS, goes_for
from gateway.conversations.shelf import Shelf
from gateway.conversations.slot import NOBODY, Slot
from gateway.conversations.slot_action import ask
from gateway.conversations.slot_queue import SlotQueue
from gateway.errors import GatewayError
from gateway.tasks import spawn
from gateway.upstream import Upstream

_log = logging.getLogger(__name__)

#: Seconds for a template to be applied or a text to be split, and for a prefix to be computed.
_SHORT: Final = 30.0
_LONG: Final = 600.0
#: Tokens that are computed at once, and the seconds that they may take: a request that comes waits
#: for so many at most.
_STEP: Final = 256
_STEP_SECONDS: Final = 0.25
_LEAST_STEP: Final = 16
#: Two questions that have nothing in common, so that prompts differ where a question begins.
_QUESTIONS: Final = ("a", "0")
#: Prefixes of which it is remembered that nothing is to be done about them.
_REMEMBERED: Final = 1024
#: Prefixes that wait for nobody to ask, at most: clients' tools, that is, of up to a megabyte.
_MOST_WAITING: Final = 32
#: Seconds after which one that fits no more is computed once more: it may begin with the date.
_ONCE_MORE: Final = 3600.0


class WarmedSlots(Protocol):
    """What is needed of :class:`gateway.conversations.slots.ConversationSlots`."""

    backend: Served
    fingerprint: str
    emptying: Emptying

    @property
    def current(self) -> bool: ...
    async def save(
        self, slot: Slot, pool: Upstream, /, *, in_danger: bool, taken: bool
    ) -> None: ...
    async def save_opening(self, slot: Slot, chain: Chain, owner: str, tokens: int, /) -> None: ...
    def free(self, slot: Slot, /) -> None: ...


class Wanted(NamedTuple):
    """What is to be computed ahead for ``owner``, for whom ``chain`` stands for ``prefix``."""

    chain: Chain
    prefix: SharedPrefix
    owner: str = SHARED


class Prewarming:
    """That of one process: ``owner``, whose ``slots`` these are."""

    def __init__(
        self, owner: WarmedSlots, slots: Sequence[Slot], queue: SlotQueue[Slot], shelf: Shelf
    ) -> None:
        self._owner = owner
        self._slots = slots
        self._queue = queue
        self._shelf = shelf
        self._wanted: dict[bytes, Wanted] = {}
        self._settled: BoundedCache[bytes, bool] = BoundedCache(_REMEMBERED)
        self.task: asyncio.Task[None] | None = None

    @property
    def waits(self) -> bool:
        """Return whether there is something to be done when nobody asks."""
        return bool(self._wanted)

    def want(self, wanted: Wanted) -> None:
        """Have ``wanted`` saved some time."""
        link = wanted.chain.links[-1]
        if not (link in self._settled or link in self._wanted or self._is_saved(wanted.chain)):
            self._wanted[link] = wanted
            if len(self._wanted) > _MOST_WAITING:
                with_tools = (one for one, each in self._wanted.items() if each.prefix.tools)
                del self._wanted[next(with_tools, next(iter(self._wanted)))]

    def refuse(self, saved: Saved) -> None:
        """Note that requests don't begin with ``saved`` any more; it is gone."""
        if self._shelf.wall() - saved.created < _ONCE_MORE:
            self._settled[saved.chain.links[-1]] = True

    def forget(self, owner: str | None) -> None:
        """Compute nothing of what is wanted for ``owner``; ``None``: for anybody."""
        wanted = len(self._wanted)
        for link, each in [*self._wanted.items()]:
            if owner in (None, each.owner):
                del self._wanted[link]
        if len(self._wanted) < wanted:
            self.give_way()

    async def run(self) -> None:
        """Compute what is wanted, unless a request comes."""
        while self.task is None and self._wanted and self._shelf.usable:
            wanted = next(iter(self._wanted.values()))
            name = f"compute ahead for {self._owner.backend.spec.name}"
            self.task = task = spawn(self._compute(wanted), name=name)
            try:
                await asyncio.wait([task])
            finally:
                self.task = None
            if wanted.chain.links[-1] in self._wanted:
                return  # not now

    def give_way(self) -> None:
        """A request comes, or the process is to be ended."""
        if self.task is not None:
            self.task.cancel()

    async def _compute(self, wanted: Wanted) -> None:
        chain, link = wanted.chain, wanted.chain.links[-1]
        if not self._has_place(wanted):
            self._wanted.pop(link, None)
            return
        try:
            tokens = [] if self._is_saved(chain) else await self._tokens_of(wanted.prefix)
            if self._is_worth_it(chain, len(tokens)):
                slot = self._spare_slot(chain)
                if slot is None:
                    return
                await self._compute_in(slot, wanted, tokens)
        except (GatewayError, ValueError, LookupError, TypeError) as error:
            _log.info("what begins conversations was not computed: %s", type(error).__name__)
        self._wanted.pop(link, None)
        if not self._is_saved(chain):
            self._settled[link] = True  # too short, or there is no room: not once more

    def _has_place(self, wanted: Wanted) -> bool:
        """Return whether there may be a file for ``wanted``, perhaps in place of an older one."""
        if not wanted.prefix.tools:
            return True
        kept = self._openings()
        if len(kept) < MOST_WITH_TOOLS:
            return True
        return goes_for(wanted.owner, kept, self._shelf.wall()) is not None

    def _make_place(self, wanted: Wanted) -> None:
        """Remove what goes for ``wanted``, which has just been saved."""
        kept, link = self._openings(), wanted.chain.links[-1]
        others = [saved for saved in kept if saved.chain.links[-1] != link]
        for _ in range(len(kept) - MOST_WITH_TOOLS):
            going = goes_for(wanted.owner, others, self._shelf.wall()) or others[0]
            others.remove(going)
            self._shelf.drop(going)

    def _openings(self) -> list[Saved]:
        """Return what is saved of openings with tools, the one that was used last at the end."""
        return self._shelf.openings(self._owner.fingerprint)

    async def _compute_in(self, slot: Slot, wanted: Wanted, tokens: list[int]) -> None:
        chain, owner = wanted.chain, NOBODY if wanted.owner == SHARED else wanted.owner
        own = self._owner.backend.flights.own
        slot.take(chain, owner)
        own.add(slot.number)
        try:
            if slot.unsaved and self._loses(slot, chain):
                await self._owner.save(slot, self._owner.backend.pool, in_danger=True, taken=True)
            whole = slot.chain.common(chain.links) == len(chain.links)  # it has only to be cut off
            if not whole:
                await self._owner.emptying.of_others(slot, owner, taken=True)
                slot.have(owner)
            slot.forget()
            # llama-server looks only between batches whether somebody still waits for an answer.
            step = len(tokens) if whole else self._step()
            for end in (*range(step, len(tokens), step), len(tokens)):
                asked = {"prompt": tokens[:end], "n_predict": 0, "id_slot": slot.number}
                await self._ask("/completion", {**asked, "cache_prompt": True}, _LONG)
                slot.have(owner)
            await self._owner.save_opening(slot, chain, wanted.owner, len(tokens))
            if wanted.prefix.tools:
                self._make_place(wanted)
        finally:
            own.discard(slot.number)
            self._owner.free(slot)

    def _step(self) -> int:
        """Return how many tokens are computed at once."""
        second = 1 / self._shelf.seconds(self._owner.fingerprint, 1)
        return max(_LEAST_STEP, min(_STEP, int(second * _STEP_SECONDS)))

    def _is_worth_it(self, chain: Chain, tokens: int) -> bool:
        """Return whether so many tokens are to be computed, and written."""
        shelf, fingerprint = self._shelf, self._owner.fingerprint
        return tokens >= shelf.min_tokens and shelf.is_worth_writing(
            fingerprint, chain, tokens, in_danger=True
        )

    def _spare_slot(self, chain: Chain) -> Slot | None:
        """Return the slot that may be used for ``chain``, ``None`` if a request is there.

        One in which nothing is lost, and then one that has it already: the rest is cut off.
        """
        if not self._owner.current or len(self._queue) or any(slot.busy for slot in self._slots):
            return None

        def order(slot: Slot) -> tuple[bool, int, bool, float]:
            common = chain.size(slot.chain.common(chain.links))
            return self._loses(slot, chain), -common, bool(slot.chain.links), slot.last_used

        spare = [slot for slot in self._slots if not slot.locked]
        return min(spare, key=order, default=None)

    def _loses(self, slot: Slot, chain: Chain) -> bool:
        """Return whether something is lost in ``slot`` that has to be saved before."""
        held = slot.chain
        common = held.size(held.common(chain.links))
        lost = slot.tokens - slot.tokens * common // max(1, held.size())
        return lost >= self._shelf.min_tokens and (slot.unsaved or not self._is_saved(held))

    def _is_saved(self, chain: Chain) -> bool:
        """Return whether all of ``chain`` can be read back."""
        found = self._shelf.longest(self._owner.fingerprint, chain)
        return (0 if found is None else found.links) == len(chain.links)

    async def _tokens_of(self, prefix: SharedPrefix) -> list[int]:
        """Return the tokens with which every prompt begins that begins with ``prefix``."""
        several: list[list[int]] = []
        for question in _QUESTIONS:
            written = await self._ask("/apply-template", prefix.chat(question), _SHORT)
            asked = {"content": written["prompt"], "add_special": True, "parse_special": True}
            several.append((await self._ask("/tokenize", asked, _SHORT))["tokens"])
        common = 0
        for one, other in zip(*several, strict=False):
            if one != other:
                break
            common += 1
        return several[0][:common]

    async def _ask(self, path: str, body: dict[str, Any], timeout: float) -> dict[str, Any]:
        return await ask(self._owner.backend.pool, path, body, timeout)
