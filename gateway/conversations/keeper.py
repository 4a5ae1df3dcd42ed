"""Each request's conversation: placed in a slot before it is sent, noted there afterwards."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, Literal

from gateway.backends.backend import Backend
from gateway.backends.nodes import Nodes
from gateway.backends.served import Served
from gateway.conversations.ahead import Ahead
from gateway.conversations.chain import (
    NOTHING_WRITTEN,
    Chain,
    Chains,
    Wish,
    may_answer_more,
    wish_of,
)
from gateway.conversations.opening import Written
from gateway.conversations.shared import SHARED
from gateway.conversations.shelves import Shelves
from gateway.conversations.slots import ConversationSlots
from gateway.conversations.stray import Stray
from gateway.conversations.turn import Turn, turn_of_wish
from gateway.plurals import counted
from gateway.private_files import make_folder
from gateway.tasks import spawn
from gateway.upstream import Upstream

_log = logging.getLogger(__name__)

#: Bytes of a body to a token, at least: those of other scripts have about three, English four.
_BYTES: Final = 2
#: Seconds that a swap may be delayed by what has to be saved first, at most.
_LEAVING: Final = 10.0


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
        nodes: Nodes | None = None,
    ) -> None:
        """``folder``: for what is saved on this machine, and for what is known of what ``nodes``
        have saved.
        """
        self._folder = folder
        self._shelves = Shelves(
            folder, nodes, max_size=max_size, max_age=max_age, min_tokens=min_tokens
        )
        self.chains = Chains()
        self._min_tokens = min_tokens
        #: Bytes of a body with which it may be too short: see :meth:`is_short`.
        self.maybe_short = _BYTES * min_tokens
        self.slots: dict[Served, ConversationSlots] = {}
        self.ahead = Ahead(self._shelves)
        #: Returns what requests of a model begin with that are to be expected.
        self.expected: Callable[[str], Awaitable[Iterable[Expected]]] | None = None
        #: Returns what an operator wrote for a model's personality, as far as it is still that.
        self.written: Callable[[str, str], Written] = lambda model, name: NOTHING_WRITTEN
        self.report = self._shelves.report
        #: Returns what is saved of a model, what that spared, and why nothing is any more.
        self.counts = self._shelves.of_model
        #: Returns how many of a model's are on the disk of each node that has some.
        self.on_nodes = self._shelves.on_nodes

    async def open(self) -> None:
        """Take the folder, and find what is there. Without one everything else goes on."""
        await self._shelves.open()
        self.ahead.open()

    async def close(self) -> None:
        """Wait until everything is written, or emptied, and let go of the folder."""
        await self._shelves.close()

    @property
    def folder(self) -> Path | None:
        """Where llama-server is to write, if that can be written to. Blocks."""
        if not self._shelves.here.usable:
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

    def turn(self, wish: Wish, owner: str, sent: bytes, answers: int = 1) -> Turn:
        """Return what places a request of the key ``owner``, as its ``wish`` is, and which is
        ``sent`` to llama-server.

        ``answers``: so many are wanted, each of which takes a slot; the first has all of its
        prompt.
        """
        return turn_of_wish(self, owner, sent, answers, wish)

    def stray(self, owner: str, count: int = 1) -> Stray:
        """Return what sees to a request, of the key ``owner``, whose ``count`` slots llama-server
        chooses.
        """
        return Stray(self.slots_of, owner, count)

    def changed(self, backend: Backend, path: str, body: bytes) -> None:
        """An administrator has asked ``path`` of a llama-server to change what it does."""
        for one in backend.several.replicas if backend.several is not None else (backend,):
            self._changed(one, path, body)

    def _changed(self, backend: Served, path: str, body: bytes) -> None:
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

    def slots_of(self, backend: Served) -> ConversationSlots | None:
        """Return those of the process that runs now, if its conversations could be saved when it
        was started.
        """
        fingerprint = backend.fingerprint
        if fingerprint is None:
            return None
        slots = self.slots.get(backend)
        if slots is None or slots.starts != backend.starts:
            # A process that died left its slots here; its backend may be gone as well.
            self.slots = {of: each for of, each in self.slots.items() if of.fingerprint}
            slots = self._begin(backend, fingerprint)
        return slots

    def _begin(self, backend: Served, fingerprint: str) -> ConversationSlots:
        shelf = self._shelves.of(backend.node)
        slots = self.slots[backend] = ConversationSlots(backend, fingerprint, shelf)
        if backend.inherited:
            slots.suspect()
        if (counts := shelf.tally.models.get(slots.model)) is not None:
            # Saved no more was what another llama-server, or another file, couldn't save.
            counts.switched_off = shelf.off(fingerprint)
        return slots

    def arrived(self, backend: Served) -> None:
        """The process of ``backend`` is ready."""
        slots = self.slots_of(backend)
        if slots is not None:
            self._look_ahead(slots)

    def look_ahead(self, model: str) -> None:
        """Requests of ``model`` are to be expected that were not before."""
        for slots in self.slots.values():
            if slots.model == model and slots.current:
                self._look_ahead(slots)

    def _look_ahead(self, slots: ConversationSlots) -> None:
        looking = spawn(self._expect(slots), name=f"look what {slots.model} will be asked")
        slots.shelf.keep_track(looking)

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

    async def leave(self, backend: Served, pool: Upstream) -> None:
        """Save what the process of ``backend`` still holds; it is about to be ended."""
        slots = self.slots.pop(backend, None)
        if slots is not None and slots.starts == backend.starts and slots.shelf.usable:
            await slots.leave(pool, _LEAVING)

    def forget_others(self, known: Callable[[str], bool]) -> None:
        """Remove the conversations of keys that are not ``known`` any more, and keep none of
        such keys from now on.
        """

        def keeps(owner: str) -> bool:
            return owner == SHARED or known(owner)

        self._shelves.know(keeps)
        self.ahead.forget(lambda owner: not keeps(owner))
        if count := self._shelves.forget(goes=lambda saved: not keeps(saved.owner)):
            _log.info("removed %d saved conversations of keys that are gone", count)

    async def clear(self, owner: str | None, model: str | None) -> int:
        """Remove what is saved of ``owner`` and of ``model``, ``None``: of all; return how many.

        What they have in slots is not saved, unless they go on with it.
        """
        for slots in self.slots.values():
            if model in (None, slots.backend.spec.name):
                slots.give_up(owner)
                slots.prewarming.forget(owner)
        self.ahead.forget(lambda one: owner in (None, one), model)
        removed = self._shelves.forget(
            goes=lambda saved: owner in (None, saved.owner) and model in (None, saved.model)
        )
        await self._shelves.removed()
        return removed

    def reach(self, backend: Served, chain: Chain) -> int:
        """Return how many links of ``chain`` can be read back where ``backend`` runs."""
        fingerprint = backend.fingerprint
        if fingerprint is None or not chain.links:
            return 0
        found = self._shelves.of(backend.node).longest(fingerprint, chain)
        return 0 if found is None else found.reach(chain)
