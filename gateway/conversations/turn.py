"""One request's conversation: placed in a slot before it is sent, noted there afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, Protocol

from gateway.backends.backend import Backend
from gateway.conversations.ahead import Ahead
from gateway.conversations.chain import (
    NO_CHAIN,
    NO_WISH,
    NOTHING_WRITTEN,
    Chains,
    Wish,
    wish_of,
)
from gateway.conversations.chosen import Chosen, prepare
from gateway.conversations.ended import Ended
from gateway.conversations.opening import Written
from gateway.conversations.said import Said
from gateway.conversations.slot import Slot
from gateway.conversations.slot_queue import Lendable
from gateway.conversations.slots import ConversationSlots
from gateway.errors import GatewayError

#: Paths at llama-server that take no ``id_slot``: it chooses the slot itself.
_CHOOSES: Final = frozenset({"/v1/messages"})
#: Events of a stream after which all of its prompt has been read, whatever the first ones tell.
_BEGUN: Final = 3


class Keeper(Protocol):
    """What is needed of :class:`gateway.conversations.keeper.Conversations`."""

    chains: Chains
    ahead: Ahead

    def slots_of(self, backend: Backend, /) -> ConversationSlots | None: ...
    def written(self, model: str, personality: str, /) -> Written: ...


class Turn(Said):
    """One request, which may be sent several times: each between :meth:`begin` and :meth:`end`.

    It is of the key ``owner``, wants so many ``answers``, and is known by its ``wish``, or by the
    ``body`` of that ``format``, of ``size`` bytes, which names no slot and has no prompt. That was
    given a ``personality``, of a model, by name. ``restored``: a saved conversation was read back
    for it, the last time that it was sent.
    """

    __slots__ = (
        "_answers",
        "_body",
        "_chosen",
        "_goes_on",
        "_personality",
        "_promised",
        "_sent",
        "_slot",
        "_slots",
        "_wish",
        "_within",
        "restored",
    )

    _slot: Slot

    def __init__(
        self,
        within: Keeper,
        owner: str,
        answers: int = 1,
        wish: Wish | None = None,
        body: Mapping[str, Any] | None = None,
        format: str = "",
        size: int = 0,
        personality: tuple[str, str] | None = None,
    ) -> None:
        # A Said's constructor isn't called: each call takes its time, and this is every request's.
        self.owner = owner
        self._chains = within.chains
        self._within = within
        self._answers = answers
        self._wish: Wish | None = None
        self._body = body
        self._personality = personality
        self._chosen: Chosen | None = None
        self._slots: ConversationSlots | None = None
        self._goes_on = self.restored = False
        if body is not None:
            self.read(body, format, size)
        else:
            self.messages = None
            self._want(wish or NO_WISH)

    def keep_nothing(self) -> None:
        """Nothing of it is to be saved, or to be known afterwards."""
        self.messages = self._body = None
        wish = self._wish or NO_WISH
        self._want(wish._replace(chain=NO_CHAIN, prefix=None, opening=None))

    def _want(self, wish: Wish) -> Wish:
        if wish.opening is not None:
            wish = wish._replace(chain=self._within.ahead.chain(wish.chain, wish.opening))
        self._wish = wish
        self.know(wish.chain)
        return wish

    def _its_wish(self) -> Wish:
        """Return what it asks of its slot, by its chain."""
        if (wish := self._wish) is not None:
            return wish
        assert self._body is not None
        written = NOTHING_WRITTEN
        if self._personality is not None:
            written = self._within.written(*self._personality)
        return self._want(wish_of(self._body, self._chains, self.format, self.owner, written))

    async def begin(self, backend: Backend, target: str, lease: Lendable) -> int | None:
        """Place it; return the slot that it has to name, if there are several.

        ``lease`` is lent to others while it waits though a slot is free.
        """
        self._promised: int | None = None
        self.restored = False
        slots = self._within.slots_of(backend)
        if slots is None:
            return None
        if slots.finding:
            await asyncio.wait(tuple(slots.finding))
        chosen = slots.several and target in _CHOOSES
        if self.messages is not None and self._answers == 1 and not chosen:
            slot = slots.try_go_on(self)
            if slot is not None:
                self._goes_on, self._slot, self._slots = True, slot, slots
                self._sent = time.perf_counter()
                return slot.number if slots.several else None
        self._goes_on = False
        return await self._begin(slots, lease, chosen)

    async def _begin(self, slots: ConversationSlots, lease: Lendable, chosen: bool) -> int | None:
        """Place it by its chain. ``chosen``: llama-server chooses the slot."""
        wish = self._its_wish()
        chain = wish.chain
        named = None if chosen else wish.named
        slot = None
        if named is None and self._answers == 1:
            slot = slots.try_acquire(chain, self.owner)
        try:
            if slot is None:
                slot, self._promised = await slots.acquire(
                    chain, self.owner, lease, named, self._answers
                )
                self.restored = slot.restored
            if chosen:
                sure = await prepare(slots, slot, chain, self.owner)
                self._chosen = Chosen(slots, slot, chain, sure=sure)
        except GatewayError:
            return None  # the process has gone: so will be found by who sends the request
        self._slot, self._slots = slot, slots
        self._sent = time.perf_counter()
        return slot.number if slots.several and named is None and not chosen else None

    def began(self) -> None:
        """Its answer, a stream, has begun."""
        if self._chosen is not None:
            self._chosen.began()

    def end(self, ended: Ended) -> None:
        """Its answer is over, however that came."""
        if (slots := self._slots) is None:
            return
        self._slots, slot = None, self._slot
        told = ended.usage
        if self._goes_on and told is not None and not ended.given_up:
            self._body = self._wish = None
            slots.went_on(slot, self, told, self._seconds(ended))
            return
        chosen, self._chosen = self._chosen, None
        if chosen is not None:
            chosen.end(ended, partial(self._note, slots, self._promised, ended))
        else:
            try:
                self._note(slots, self._promised, ended, slot)
            finally:  # whatever goes wrong, it is not taken for ever
                slots.give_back(slot, ended)

    def _note(
        self, slots: ConversationSlots, promised: int | None, ended: Ended, slot: Slot
    ) -> None:
        told = ended.usage
        chain = self.chain
        slots.noting.done(
            slot,
            chain,
            self.owner,
            prompt=told.prompt_tokens if told is not None else None,
            cached=told.cached_tokens if told is not None else 0,
            completion=told.completion_tokens if told is not None else 0,
            seconds=self._seconds(ended),
            promised=promised,
            alone=self._answers == 1,
            begun=ended.events >= _BEGUN,
            said=self if self.messages is not None else None,
        )
        if told is not None:
            if chain.shared and self._wish is not None:
                self._within.ahead.note(slots, self._wish, self.owner)
            self._body = self._wish = None  # it is over: not to be kept with what it said

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
