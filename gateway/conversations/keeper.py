"""Each request's conversation: placed in a slot before it is sent, noted there afterwards."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, Literal

from gateway.backends.backend import Backend
from gateway.bounded_cache import BoundedCache
from gateway.conversations.ahead import Ahead
from gateway.conversations.chain import Chains, Wish, may_answer_more, wish_of
from gateway.conversations.chosen import Chosen, prepare
from gateway.conversations.counts import Spared
from gateway.conversations.ended import Ended
from gateway.conversations.files import CacheFiles
from gateway.conversations.opening import Written
from gateway.conversations.shared import SHARED
from gateway.conversations.shelf import Shelf
from gateway.conversations.slot import Slot
from gateway.conversations.slot_queue import Lendable
from gateway.conversations.slots import ConversationSlots
from gateway.conversations.stray import Stray
from gateway.errors import GatewayError
from gateway.plurals import counted
from gateway.private_files import make_folder
from gateway.tasks import spawn
from gateway.upstream import Upstream

_log = logging.getLogger(__name__)

#: Paths at llama-server that take no ``id_slot``: it chooses the slot itself.
_CHOOSES: Final = frozenset({"/v1/messages"})
#: Bytes of a body to a token, at least: those of other scripts have about three, English four.
_BYTES: Final = 2
#: Events of a stream after which all of its prompt has been read, whatever the first ones tell.
_BEGUN: Final = 3
#: Seconds that a swap may be delayed by what has to be saved first, at most.
_LEAVING: Final = 10.0
#: Personalities of which it is remembered what their operator wrote.
_WRITTEN: Final = 1024


#: A chat request, and what of it an operator wrote.
Expected = tuple[Mapping[str, Any], Written]


class Conversations:
    """Those of one gateway."""

    def __init__(
        self,
        folder: Path,
        *,
        max_size: int | Literal["auto"],
        max_age: float,
        min_tokens: int,
    ) -> None:
        self._folder = folder
        self._shelf = Shelf(CacheFiles(folder, max_size), max_age=max_age, min_tokens=min_tokens)
        self.chains = Chains()
        self._min_tokens = min_tokens
        self._slots: dict[Backend, ConversationSlots] = {}
        self.ahead = Ahead(self._shelf)
        #: Returns what requests of a model begin with that are to be expected.
        self.expected: Callable[[str], Awaitable[Iterable[Expected]]] | None = None
        #: What an operator wrote for a personality, by model and name, with the object it is of.
        self.written: BoundedCache[tuple[str, str], tuple[object, Written]] = BoundedCache(_WRITTEN)
        self.close = self._shelf.close
        self.report = self._shelf.report

    async def open(self) -> None:
        """Take the folder, and find what is there. Without one everything else goes on."""
        await self._shelf.open()
        self.ahead.open()

    @property
    def folder(self) -> Path | None:
        """Where llama-server is to write, if that can be written to. Blocks."""
        if not self._shelf.usable:
            return None
        try:
            make_folder(self._folder)  # llama-server doesn't start without it
        except OSError:
            return None
        return self._folder

    def is_short(self, body: Mapping[str, Any], size: int) -> bool:
        """Return whether a request with ``body``, of ``size`` bytes, and its answer are too short
        together for their conversation to be worth knowing.
        """
        left = self._min_tokens - size // _BYTES
        return left > 0 and not may_answer_more(body, left)

    def turn(self, wish: Wish, owner: str, answers: int = 1) -> Turn:
        """Return what places a request of the key ``owner``, as its ``wish`` is.

        ``answers``: so many are wanted, each of which takes a slot; the first has all of its
        prompt.
        """
        if wish.opening is not None:
            wish = wish._replace(chain=self.ahead.chain(wish.chain, wish.opening))
        return Turn(self, wish, owner, answers)

    def stray(self, owner: str, count: int = 1) -> Stray:
        """Return what sees to a request, of the key ``owner``, whose ``count`` slots llama-server
        chooses.
        """
        return Stray(self.slots_of, owner, count)

    def changed(self, backend: Backend, path: str, body: bytes) -> None:
        """An administrator has asked ``path`` of a llama-server to change what it does."""
        slots = self.slots_of(backend)
        if slots is None:
            return
        if path.startswith("/slots/"):
            slots.forget_idle()  # one has been emptied, or what is in it comes from a file
            slots.suspect()
        elif path == "/lora-adapters":
            # What was computed with the others is of no use, nor what will be for other processes.
            slots.end()
            fingerprint = blake2b(body, digest_size=16, key=slots.fingerprint.encode()).hexdigest()
            self._begin(backend, fingerprint).suspect()

    def slots_of(self, backend: Backend) -> ConversationSlots | None:
        """Return those of the process that runs now, if its conversations could be saved when it
        was started.
        """
        fingerprint = backend.fingerprint
        if fingerprint is None:
            return None
        slots = self._slots.get(backend)
        if slots is None or slots.starts != backend.starts:
            # A process that died left its slots here; its backend may be gone as well.
            self._slots = {of: each for of, each in self._slots.items() if of.fingerprint}
            slots = self._begin(backend, fingerprint)
        return slots

    def _begin(self, backend: Backend, fingerprint: str) -> ConversationSlots:
        slots = self._slots[backend] = ConversationSlots(backend, fingerprint, self._shelf)
        if (counts := self._shelf.tally.models.get(slots.model)) is not None:
            # Saved no more was what another llama-server, or another file, couldn't save.
            counts.switched_off = self._shelf.off(fingerprint)
        return slots

    def arrived(self, backend: Backend) -> None:
        """The process of ``backend`` is ready."""
        slots = self.slots_of(backend)
        if slots is not None:
            self._look_ahead(slots)

    def look_ahead(self, model: str) -> None:
        """Requests of ``model`` are to be expected that were not before."""
        for slots in self._slots.values():
            if slots.model == model and slots.current:
                self._look_ahead(slots)

    def _look_ahead(self, slots: ConversationSlots) -> None:
        looking = spawn(self._expect(slots), name=f"look what {slots.model} will be asked")
        self._shelf.keep_track(looking)

    async def _expect(self, slots: ConversationSlots) -> None:
        wishes = []
        if self.expected is not None:
            for body, written in await self.expected(slots.model):
                wishes.append(wish_of(body, self.chains, "chat", SHARED, written))
        if slots.current:
            self.ahead.arrived(slots, wishes)

    def keep_texts(self, texts: Mapping[str, Collection[Written]]) -> None:
        """Remove what is saved of texts that personalities don't have any more: ``texts`` has
        those of each model.
        """
        if count := self.ahead.keep_texts(texts):
            _log.info("removed %s of earlier personalities", counted(count, "beginning"))

    async def leave(self, backend: Backend, pool: Upstream) -> None:
        """Save what the process of ``backend`` still holds; it is about to be ended."""
        slots = self._slots.pop(backend, None)
        if slots is not None and slots.starts == backend.starts and self._shelf.usable:
            await slots.leave(pool, _LEAVING)

    def forget_others(self, known: Callable[[str], bool]) -> None:
        """Remove the conversations of keys that are not ``known`` any more, and keep none of
        such keys from now on.
        """

        def keeps(owner: str) -> bool:
            return owner == SHARED or known(owner)

        self._shelf.is_known = keeps
        self.ahead.forget(lambda owner: not keeps(owner))
        if count := self._shelf.forget(goes=lambda saved: not keeps(saved.owner)):
            _log.info("removed %d saved conversations of keys that are gone", count)

    async def clear(self, owner: str | None, model: str | None) -> int:
        """Remove what is saved of ``owner`` and of ``model``, ``None``: of all; return how many.

        What they have in slots is not saved, unless they go on with it.
        """
        for slots in self._slots.values():
            if model in (None, slots.backend.spec.name):
                slots.give_up(owner)
                slots.prewarming.forget(owner)
        self.ahead.forget(lambda one: owner in (None, one), model)
        removed = self._shelf.forget(
            goes=lambda saved: owner in (None, saved.owner) and model in (None, saved.model)
        )
        await self._shelf.removed()
        return removed

    def counts(self, model: str) -> Spared | None:
        """Return what is saved of ``model``, what that spared, and why nothing is any more."""
        return self._shelf.of_model(model)


class Turn:
    """One request, which may be sent several times: each between :meth:`begin` and :meth:`end`.

    ``restored``: a saved conversation was read back for it, the last time that it was sent.
    """

    __slots__ = (
        "_answers",
        "_chain",
        "_chosen",
        "_owner",
        "_promised",
        "_sent",
        "_slot",
        "_slots",
        "_wish",
        "_within",
        "restored",
    )

    def __init__(self, within: Conversations, wish: Wish, owner: str, answers: int) -> None:
        self._within = within
        self._wish = wish
        self._chain = wish.chain
        self._owner = owner
        self._answers = answers
        self._chosen: Chosen | None = None
        self._slots: ConversationSlots | None = None
        self._slot: Slot | None = None
        self._promised: int | None = None
        self._sent = 0.0
        self.restored = False

    async def begin(self, backend: Backend, target: str, lease: Lendable) -> int | None:
        """Place it; return the slot that it has to name, if there are several.

        ``lease`` is lent to others while it waits though a slot is free.
        """
        self._promised, self.restored = None, False
        slots = self._within.slots_of(backend)
        if slots is None:
            return None
        if slots.finding:
            await asyncio.wait(tuple(slots.finding))
        chosen = slots.several and target in _CHOOSES
        named = None if chosen else self._wish.named
        slot = None
        if named is None and self._answers == 1:
            slot = slots.try_acquire(self._chain, self._owner)
        try:
            if slot is None:
                slot, self._promised = await slots.acquire(
                    self._chain, self._owner, lease, named, self._answers
                )
                self.restored = slot.restored
            if chosen:
                sure = await prepare(slots, slot, self._chain, self._owner)
                self._chosen = Chosen(slots, slot, self._chain, sure=sure)
        except GatewayError:
            return None  # the process has gone: so will be found by who sends the request
        self._slot = slot
        self._slots = slots
        self._sent = time.perf_counter()
        return slot.number if slots.several and named is None and not chosen else None

    def began(self) -> None:
        """Its answer, a stream, has begun."""
        if self._chosen is not None:
            self._chosen.began()

    def end(self, ended: Ended) -> None:
        """Its answer is over, however that came."""
        slots, slot = self._slots, self._slot
        if slots is None or slot is None:
            return
        chosen, self._chosen = self._chosen, None
        self._slots = self._slot = None
        if chosen is not None:
            chosen.end(ended, partial(self._note, slots, self._promised, ended))
            return
        try:
            self._note(slots, self._promised, ended, slot)
        finally:  # whatever goes wrong, it is not taken for ever
            slots.give_back(slot, ended)

    def _note(
        self, slots: ConversationSlots, promised: int | None, ended: Ended, slot: Slot
    ) -> None:
        told = ended.usage
        slots.done(
            slot,
            self._chain,
            self._owner,
            prompt=told.prompt_tokens if told is not None else None,
            cached=told.cached_tokens if told is not None else 0,
            completion=told.completion_tokens if told is not None else 0,
            seconds=self._seconds(ended),
            promised=promised,
            alone=self._answers == 1,
            begun=ended.events >= _BEGUN,
        )
        if told is not None and self._chain.shared:
            self._within.ahead.note(slots, self._wish, self._owner)

    def _seconds(self, ended: Ended) -> float | None:
        """Return how long its prompt was read; what isn't streamed begins when all of it is
        written.
        """
        told = ended.usage
        if told is None or ended.began is None:
            return None
        seconds = ended.began - self._sent
        if not ended.events and told.tokens_per_second:
            seconds -= told.completion_tokens / told.tokens_per_second
        return seconds
