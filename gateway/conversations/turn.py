"""One request's conversation: placed in a slot before it is sent, noted there afterwards."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Mapping
from functools import partial
from time import monotonic, perf_counter
from typing import Any, Final, Protocol

import orjson

from gateway.backends.served import Served
from gateway.conversations.ahead import Ahead
from gateway.conversations.chain import (
    NO_CHAIN,
    NO_WISH,
    NOTHING_WRITTEN,
    UNUSUAL,
    Chain,
    Chains,
    Wish,
    short_wish,
    wish_of,
)
from gateway.conversations.chosen import Chosen, prepare
from gateway.conversations.ended import Ended
from gateway.conversations.noting import MEASURABLE
from gateway.conversations.opening import Written
from gateway.conversations.said import Said
from gateway.conversations.slot import Slot
from gateway.conversations.slot_queue import Lendable
from gateway.conversations.slots import ConversationSlots
from gateway.conversations.stray import Stray
from gateway.errors import GatewayError

#: Paths at llama-server that take no ``id_slot``: it chooses the slot itself.
_CHOOSES: Final = frozenset({"/v1/messages"})
#: Events of a stream after which all of its prompt has been read, whatever the first ones tell.
_BEGUN: Final = 3


class Keeper(Protocol):
    """What is needed of :class:`gateway.conversations.keeper.Conversations`."""

    chains: Chains
    ahead: Ahead
    maybe_short: int
    slots: dict[Served, ConversationSlots]

    def slots_of(self, backend: Served, /) -> ConversationSlots | None: ...
    def reach(self, backend: Served, chain: Chain, /) -> int: ...
    def is_short(self, body: Mapping[str, Any], size: int, /) -> bool: ...
    def written(self, model: str, personality: str, /) -> Written: ...


class Turn(Said):
    """One request, which may be sent several times: each between :meth:`go_on`, or else
    :meth:`begin`, and :meth:`end`.

    It is of the key ``owner``, wants so many ``answers``, and is known by its ``wish``, or by what
    is ``sent``, in that ``format``: a JSON object, parsed to ``body``. That was given a
    ``personality`` of ``model``, by name. ``restored``: a saved conversation was read back for it,
    the last time that it was sent; ``named``: the slot that it has to name, if it goes on there,
    and there are several; ``stray``: what sees to it, if llama-server chooses its slots.

    It has no constructor, since this is every request's: all that is above the line is set by who
    makes it, see :func:`turn_of_wish`.
    """

    __slots__ = (
        "_at",
        "_chosen",
        "_goes_on",
        "_promised",
        "_slot",
        "answers",
        "body",
        "model",
        "named",
        "personality",
        "restored",
        "slots",
        "stray",
        "wish",
    )

    within: Keeper
    answers: int
    body: Mapping[str, Any] | None
    model: str
    personality: str | None
    slots: ConversationSlots | None
    stray: Stray | None
    wish: Wish | None
    # --- what becomes of it
    named: int | None
    restored: bool
    _at: float
    _chosen: Chosen | None
    _goes_on: bool
    _slot: Slot

    def keep_nothing(self) -> None:
        """Nothing of it is to be saved, or to be known afterwards."""
        body, self.body = self.body, None
        wish = self.wish
        if wish is None:
            wish = NO_WISH if body is None else short_wish(body)
        self.want(wish._replace(chain=NO_CHAIN, prefix=None, opening=None))

    def want(self, wish: Wish) -> Wish:
        """Be known by ``wish``."""
        if wish.opening is not None:
            wish = wish._replace(chain=self.within.ahead.chain(wish.chain, wish.opening))
        self.wish = wish
        self.know(wish.chain)
        return wish

    def _its_wish(self) -> Wish:
        """Return what it asks of its slot, by its chain."""
        if (wish := self.wish) is not None:
            return wish
        if (body := self.body) is None:  # it is sent once more
            body = self.body = orjson.loads(self.sent)
        if len(self.sent) < self.within.maybe_short and self.within.is_short(body, len(self.sent)):
            self.body = None
            return self.want(short_wish(body))
        if not UNUSUAL.isdisjoint(body):
            self.body = None  # it isn't to be recognised
        written = NOTHING_WRITTEN
        if self.personality is not None:
            written = self.within.written(self.model, self.personality)
        return self.want(wish_of(body, self.within.chains, self.format, self.owner, written))

    def reach(self, backend: Served) -> int:
        """Return how much of it can be read back where ``backend`` runs."""
        return self.within.reach(backend, self._its_wish().chain)

    def go_on(self, backend: Served) -> bool:
        """Take the slot in which it goes on with all that is there, if its bytes tell that, and
        nobody waits for one; return whether that is so. Else it has to :meth:`begin`.

        That would find the same slot, or one where more of it is. What would be a call here costs
        nearly every request more than it does.
        """
        slots, body = self.within.slots.get(backend), self.body
        if (
            body is None
            or slots is None
            or slots.starts != backend.starts
            or slots.waiting
            or slots.finding
            or slots.prewarming.task is not None
        ):
            return False
        sent = self.sent
        if (slot := slots.only) is None:
            bounds = slots.bounds
            if bounds.apart:  # as in Bounds.find
                slot = bounds.whose[bisect_right(bounds.ordered, sent) - 1]
            else:
                slot = bounds.find(sent)
        if slot is None or not sent.startswith(slot.bound):
            return self._go_back(slots, body)
        if (before := slot.ready) is None:
            slot = slots.ready_with(sent, self.owner) if slots.several else None
            if slot is None or (before := slot.ready) is None:
                return False
        known, owner = before.recognised, self.owner
        if (
            known.owner != owner
            or known.format != self.format
            or (known.none_longer != slots.shelf.changes and not slots.none_longer(known))
        ):
            return False
        if len(body) != known.fields or not sent.endswith(known.end):
            other = known.with_end(sent, body) if self.answers == 1 else None
            if other is None:
                return False
            known = other
        # Not several in one line: of more than three a tuple would be made first.
        self.recognised = known
        self._chain = self.body = slot.seen = slot.ready = None
        self._goes_on = slot.busy = True
        self.restored = False
        self._slot = slot
        self.slots = slots
        slot.asking = self
        slot.asker = owner
        self.named = slot.named
        self._at = perf_counter()
        return True

    def _go_back(self, slots: ConversationSlots, body: Mapping[str, Any]) -> bool:
        """Take the slot that has all of what it says in it, and so little more that this isn't
        worth saving, and no other slot worth looking at; return whether there is one.
        """
        found = slots.has_all_of(self.sent, body, self.owner, self.format)
        if found is None:
            return False
        slot, self.recognised = found
        self._chain = self.body = None
        self._goes_on, self._slot, self.slots = True, slot, slots
        slot.busy, slot.asking, slot.asker = True, self, self.owner
        slot.seen = slot.ready = None
        slot.show(self.sent[: self.recognised.cut])
        self.named, self.restored = slot.named, False
        self._at = perf_counter()
        return True

    async def begin(self, backend: Served, target: str, lease: Lendable) -> int | None:
        """Place it by its chain; return the slot that it has to name, if there are several.

        ``lease`` is lent to others while it waits though a slot is free.
        """
        self._promised: int | None = None
        self._chosen = None
        self._goes_on = self.restored = False
        slots = self.within.slots_of(backend)
        if slots is None:
            return None
        wish = self._its_wish()
        if wish.raw and slots.shelf.in_vain.leaves_alone(slots.fingerprint):
            wish = self.want(wish._replace(chain=NO_CHAIN))
        if wish.prompts > 1 or wish.named == -1:  # llama-server chooses its slots
            self.stray = Stray(self.within.slots_of, self.owner, wish.prompts * self.answers)
            await self.stray.begin(backend, target, lease)
            return None
        if slots.finding:
            await asyncio.wait(tuple(slots.finding))
        chosen = slots.several and target in _CHOOSES  # by llama-server
        chain = wish.chain
        named = None if chosen else wish.named
        slot = None
        if named is None and self.answers == 1:
            slot = slots.try_acquire(chain, self.owner)
        try:
            if slot is None:
                slot, self._promised = await slots.acquire(
                    chain, self.owner, lease, named, self.answers
                )
                self.restored = slot.restored
            if chosen:
                sure = await prepare(slots, slot, chain, self.owner)
                self._chosen = Chosen(slots, slot, chain, sure=sure)
        except GatewayError:
            return None  # the process has gone: so will be found by who sends the request
        if len(chain.links) > chain.shared:
            slot.show(self.sent[: slots.noting.most_said])
        self._slot, self.slots = slot, slots
        self._at = perf_counter()
        return slot.number if slots.several and named is None and not chosen else None

    def began(self) -> None:
        """Its answer, a stream, has begun."""
        if not self._goes_on and self._chosen is not None:
            self._chosen.began()

    def end(self, ended: Ended) -> None:
        """Its answer is over, however that came."""
        if (slots := self.slots) is None:
            if self.stray is not None:
                self.stray.end(ended)
            return
        self.slots = None
        slot, told = self._slot, ended.usage
        if not self._goes_on or told is None or ended.given_up:
            self._leave(slots, slot, ended)
            return
        # What it went on with is longer now by what it said, and its answer. The same as
        # :meth:`_note`, in fewer steps: this is what most requests do.
        try:
            known, sent, noting = self.recognised, self.sent, slots.noting
            prompt, cached = told.prompt_tokens, told.cached_tokens
            slot.tokens = prompt + told.completion_tokens
            slot.prompt = prompt
            slot.last_used = monotonic()
            if len(sent) > noting.most_said:
                self._hold_all(slots, slot)
            else:  # besides, it is as it was left by what it went on with
                text = self.text = sent[: known.cut]
                self.sent = b""
                if (bounds := slots.bounds).alike and text != slot.bound:
                    bounds.changed()
                slot.bound = slot.left = text
                slot.said = slot.ready = self
                slot.asking = slot.seen = None
            slot.unsaved = True
            if prompt - cached >= MEASURABLE:
                noting.learn(prompt - cached, self._seconds(ended))
            if cached >= noting.least_hit:
                live = slot.live
                live.hits += 1
                live.tokens += cached
        finally:  # whatever goes wrong, it is not taken for ever
            slot.busy = False
        if slots.waiting:
            slots.look_again()
        if slot.timer is None:
            slots.look_later(slot)

    def _hold_all(self, slots: ConversationSlots, slot: Slot) -> None:
        """It said too much to be remembered; it has gone on in ``slot``, whose tokens are told."""
        prompt, tokens, bound = slot.prompt, slot.tokens, self.sent[: slots.noting.most_said]
        slot.hold(self.chain, self.owner, prompt=prompt, tokens=tokens, bound=bound)
        slot.release()

    def _leave(self, slots: ConversationSlots, slot: Slot, ended: Ended) -> None:
        """Note what is in ``slot`` now, and give it back."""
        if (chosen := None if self._goes_on else self._chosen) is not None:
            self._chosen = None
            chosen.end(ended, partial(self._note, slots, self._promised, ended, None))
            return
        try:
            body = self.body if self.wish is not None else None
            promised = None if self._goes_on else self._promised
            self._note(slots, promised, ended, body, slot)
        finally:
            slots.give_back(slot, ended)

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
            alone=self.answers == 1,
            begun=ended.events >= _BEGUN,
            said=self,
            body=body,
            raw=self.wish is not None and self.wish.raw,
        )
        if told is not None:
            if chain.shared and self.wish is not None:
                self.within.ahead.note(slots, self.wish, self.owner)
            self.body = self.wish = None  # it is over: not to be kept with what it said

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


def turn_of_wish(within: Keeper, owner: str, sent: bytes, answers: int, wish: Wish) -> Turn:
    """Return that of a request of ``owner`` which is known by its ``wish``, and not by what is
    ``sent``.
    """
    turn = Turn()
    turn.within, turn.owner, turn.sent, turn.answers = within, owner, sent, answers
    turn.body = turn.personality = turn.slots = turn.stray = None
    turn.format = turn.model = ""
    turn.want(wish)
    return turn
