"""One request's conversation: placed in a slot before it is sent, noted there afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, Protocol

import orjson

from gateway.backends.served import Served
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
from gateway.conversations.ended import AnswerUsage, Ended
from gateway.conversations.noting import MEASURABLE
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
    slots: dict[Served, ConversationSlots]

    def slots_of(self, backend: Served, /) -> ConversationSlots | None: ...
    def written(self, model: str, personality: str, /) -> Written: ...


class Turn(Said):
    """One request, which may be sent several times: each between :meth:`go_on`, or else
    :meth:`begin`, and :meth:`end`.

    It is of the key ``owner``, wants so many ``answers``, and is known by its ``wish``, or by what
    is ``sent``, in that ``format``: a JSON object, parsed to ``body``, which names no slot and has
    no prompt. That was given a ``personality`` of ``model``, by name. ``restored``: a saved
    conversation was read back for it, the last time that it was sent; ``named``: the slot that it
    has to name, if it goes on there, and there are several.
    """

    __slots__ = (
        "_answers",
        "_at",
        "_body",
        "_chosen",
        "_goes_on",
        "_model",
        "_personality",
        "_promised",
        "_slot",
        "_slots",
        "_wish",
        "_within",
        "named",
        "restored",
    )

    _slot: Slot
    _goes_on: bool
    _at: float
    named: int | None

    def __init__(
        self,
        within: Keeper,
        owner: str,
        sent: bytes,
        answers: int = 1,
        wish: Wish | None = None,
        body: Mapping[str, Any] | None = None,
        format: str = "",
        model: str = "",
        personality: str | None = None,
    ) -> None:
        # A Said's constructor isn't called: each call takes its time, and this is every request's.
        self._chains = within.chains
        self._within = within
        self.owner = owner
        self.sent = sent
        self.format = format
        self._answers = answers
        self._body = body
        self._model, self._personality = model, personality
        self._chosen: Chosen | None = None
        self._slots: ConversationSlots | None = None
        self._wish: Wish | None = None
        self.restored = False
        if wish is not None:
            self._want(wish)

    def keep_nothing(self) -> None:
        """Nothing of it is to be saved, or to be known afterwards."""
        self._body = None
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
        if (body := self._body) is None:  # it is sent once more
            body = self._body = orjson.loads(self.sent)
        written = NOTHING_WRITTEN
        if self._personality is not None:
            written = self._within.written(self._model, self._personality)
        return self._want(wish_of(body, self._chains, self.format, self.owner, written))

    def go_on(self, backend: Served) -> bool:
        """Take the slot in which it goes on with all that is there, if its bytes tell that, and
        nobody waits for one; return whether that is so. Else it has to :meth:`begin`.

        That would find the same slot, or one where more of it is. What would be a call here costs
        nearly every request more than it does.
        """
        slots, body = self._within.slots.get(backend), self._body
        if (
            body is None
            or slots is None
            or slots.starts != backend.starts
            or slots.waiting
            or slots.finding
            or slots.prewarming.task is not None
            or self._answers != 1
        ):
            return False
        sent, owner = self.sent, self.owner
        place = slots.bounds.place_of(sent)
        if place is None:
            return self._go_back(slots, body)
        slot = slots.to_look_at[place]
        before = slot.said
        if before is None or slot.busy or slot.inside != owner or slot.lock.locked():
            return False
        known = before.recognised
        if (
            known.owner != owner
            or known.format != self.format
            or (known.none_longer != slots.shelf.changes and not slots.none_longer(known))
        ):
            return False
        if len(body) != known.fields or not sent.endswith(known.end):
            other = known.with_end(sent, body)
            if other is None:
                return False
            known = other
        # Not several in one line: of more than three a tuple would be made first.
        self.recognised = known
        self._chain = self._body = slot.seen = None
        self._goes_on = slot.busy = True
        self._slot = slot
        self._slots = slots
        slot.asking = self
        slot.asker = owner
        self.named = slot.number if slots.several else None
        self.restored = False
        self._at = time.perf_counter()
        return True

    def _go_back(self, slots: ConversationSlots, body: Mapping[str, Any]) -> bool:
        """Take the slot that has all of what it says in it, and so little more that this isn't
        worth saving, and no other slot worth looking at; return whether there is one.
        """
        found = slots.has_all_of(self.sent, body, self.owner, self.format)
        if found is None:
            return False
        slot, self.recognised = found
        self._chain = self._body = None
        self._goes_on, self._slot, self._slots = True, slot, slots
        slot.busy, slot.asking, slot.asker = True, self, self.owner
        slot.seen = None
        slot.show(self.sent[: slots.noting.most_said])
        self.named = slot.number if slots.several else None
        self.restored = False
        self._at = time.perf_counter()
        return True

    async def begin(self, backend: Served, target: str, lease: Lendable) -> int | None:
        """Place it by its chain; return the slot that it has to name, if there are several.

        ``lease`` is lent to others while it waits though a slot is free.
        """
        self._promised: int | None = None
        self._goes_on = self.restored = False
        slots = self._within.slots_of(backend)
        if slots is None:
            return None
        if slots.finding:
            await asyncio.wait(tuple(slots.finding))
        chosen = slots.several and target in _CHOOSES  # by llama-server
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
        if len(chain.links) > chain.shared:
            slot.show(self.sent[: slots.noting.most_said])
        self._slot, self._slots = slot, slots
        self._at = time.perf_counter()
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
            try:
                self._went_on(slots, slot, told, ended)
            finally:  # whatever goes wrong, it is not taken for ever
                slot.busy = False
            return
        chosen, self._chosen = self._chosen, None
        if chosen is not None:
            chosen.end(ended, partial(self._note, slots, self._promised, ended, None))
        else:
            try:
                body = self._body if self._wish is not None else None
                promised = None if self._goes_on else self._promised
                self._note(slots, promised, ended, body, slot)
            finally:  # whatever goes wrong, it is not taken for ever
                slots.give_back(slot, ended)

    def _went_on(
        self, slots: ConversationSlots, slot: Slot, told: AnswerUsage, ended: Ended
    ) -> None:
        """What it went on with is longer now by what it said, and its answer.

        The same as :meth:`_note`, in fewer steps: this is what most requests do.
        """
        known, sent, noting = self.recognised, self.sent, slots.noting
        prompt, cached = told.prompt_tokens, told.cached_tokens
        tokens = prompt + told.completion_tokens
        slot.last_used = time.monotonic()
        if len(sent) > noting.most_said:
            bound = sent[: noting.most_said]
            slot.hold(self.chain, self.owner, prompt=prompt, tokens=tokens, bound=bound)
            slot.release()
        else:  # besides, it is as it was left by what it went on with
            text = self.text = slot.bound = sent[: -len(known.end)]
            slots.bounds.change(slot.place, text)
            self.sent = b""
            slot.said = self
            slot.prompt = prompt
            slot.tokens = tokens
            slot.busy = False
            slot.asking = slot.seen = None
        slot.unsaved = True
        if prompt - cached >= MEASURABLE:
            noting.learn(prompt - cached, self._seconds(ended))
        if cached >= noting.least_hit:
            noting.count(self.owner, cached, restored=False)
        if slots.waiting:
            slots.look_again()
        if slot.timer is None:
            slots.look_later(slot)

    def _note(
        self,
        slots: ConversationSlots,
        promised: int | None,
        ended: Ended,
        body: Mapping[str, Any] | None,
        slot: Slot,
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
            said=self,
            body=body,
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
        seconds = ended.began - self._at
        if not ended.events and told.tokens_per_second:
            seconds -= told.completion_tokens / told.tokens_per_second
        return seconds
