"""The slot of a request that cannot name one: llama-server chooses it, and tells afterwards.

``/v1/messages`` takes no ``id_slot`` (b11549). llama-server takes the free slot whose content has
most of the prompt's tokens, or, if none has a tenth of them, the one that was used longest ago
(``get_available_slot`` in ``tools/server/server-context.cpp``). So the slot that has more links of
the conversation than any other is chosen; in other cases whatever may be overwritten is saved
before. In either case ``GET /slots`` tells what it was.

It compares tokens, whoever asked them. So what other keys have in free slots is removed, unless a
request goes on with all that is in its own: then another slot could only be more alike if another
key had the same conversation, with the same answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from gateway.backends.slots import SlotSeen, each_slot
from gateway.conversations.chain import Chain
from gateway.conversations.ended import AnswerUsage, Ended
from gateway.conversations.place import is_most_alike
from gateway.conversations.slot import Slot
from gateway.conversations.slots import ConversationSlots
from gateway.tasks import spawn

#: Why a key may notice what another one asked.
_NOT_PRIVATE: Final = (
    "llama-server chooses among its slots for /v1/messages, several prompts and files: a key may "
    "notice how a conversation of another one goes on that begins as its own (`parallel: 1` ends "
    "that)"
)


async def prepare(slots: ConversationSlots, slot: Slot, chain: Chain, owner: str) -> bool:
    """Prepare for a request of ``owner`` that took ``slot``, but which llama-server puts where it
    likes.

    Return whether that is sure to be there; if it isn't, all that may be overwritten is saved. It
    is free again if this is cancelled.
    """
    others = [other for other in slots.all if other is not slot and not other.busy]
    sure = is_most_alike(chain, slot.chain, [other.view_of(owner).chain for other in others])
    goes_on = chain.common(slot.chain.links) == len(slot.chain.links)
    try:
        if not (sure and goes_on):
            await clear(slots, others, owner, save=not sure)
    except BaseException:
        slots.free(slot)
        raise
    tell(slots, slot, owner)
    return sure


def tell(slots: ConversationSlots, taken: Slot, owner: str) -> None:
    """Tell it where something of other keys is in slots that llama-server may choose instead of the
    one that ``owner`` has ``taken``, also if one at work becomes free in this very moment.
    """
    if any(other.is_anothers(owner) for other in slots.all if other is not taken):
        slots.shelf.tally.models[slots.model].not_private = _NOT_PRIVATE


async def clear(
    slots: ConversationSlots, free: Sequence[Slot], owner: str, *, save: bool = True
) -> None:
    """Leave nothing of other keys in slots that are ``free``, since llama-server may choose them
    for ``owner``; ``save``: nor anything that isn't saved.
    """
    for slot in free:
        if save or slot.is_anothers(owner):
            await slots.save_idle(slot, in_danger=True)
        await slots.emptying.of_others(slot, owner, taken=False)
    for slot in free:
        if not slot.busy:
            slot.have(owner)  # from now on


class Chosen:
    """One such request, for which ``slot`` was taken, which it is in as far as it is ``sure``."""

    def __init__(self, slots: ConversationSlots, slot: Slot, chain: Chain, *, sure: bool) -> None:
        self._slots = slots
        self._slot = slot
        self._chain = chain
        self._sure = sure
        self._known = self._over = False
        slot.chosen = True

    def began(self) -> None:
        """Its answer has begun: now the slot that it is in can be seen at work."""
        name = f"look which slot of {self._slots.backend.spec.name} was chosen"
        spawn(self._look(), name=name)

    async def _look(self) -> None:
        seen = each_slot(await self._slots.backend.slot_looks.now())
        if seen is None or self._over:
            return
        taken = {slot.number for slot in self._slots.all if slot.busy and not slot.chosen}
        working = [one.number for one in seen if one.working and one.number not in taken]
        if self._slot.number not in working:
            if len(working) != 1 or (chosen := self._slots.all[working[0]]).busy:
                return  # others have chosen slots, too
            self._slots.move(self._slot, chosen, self._chain)
            self._slot = chosen
        self._slot.chosen = False
        self._known = True

    def end(self, ended: Ended, note: Callable[[Slot], None]) -> None:
        """Its answer is over; call ``note`` with the slot that it was in, if that can be told."""
        self._over = True
        if self._known:
            note(self._slot)
            self._slots.give_back(self._slot, ended)
        else:
            name = f"look which slot of {self._slots.backend.spec.name} was chosen"
            self._slot.ending = finding = spawn(self._find(ended, note), name=name)
            if not ended.given_up:
                self._slots.finding.add(finding)
                finding.add_done_callback(self._slots.finding.discard)

    async def _find(self, ended: Ended, note: Callable[[Slot], None]) -> None:
        slots, slot = self._slots, self._slot
        found: Slot | None = None
        try:
            if ended.given_up:
                await slots.until_idle(slot, ended)
            elif (told := ended.usage) is not None:
                seen = each_slot(await slots.backend.slot_looks.now()) or ()
                free = {one.number for one in slots.all if one is slot or not one.busy}
                likely = slot.number if self._sure else None
                if (number := chosen_by(told, seen, free, likely)) is not None:
                    found = slots.all[number]
                    found.restored = slot.restored and found is slot
        finally:
            slot.ending = None
            if found is not None:
                note(found)
            else:
                slot.forget()
                slots.forget_idle()
            slots.free(slot)
            if found is not None and found is not slot:
                slots.free(found)


def chosen_by(
    told: AnswerUsage, seen: Sequence[SlotSeen], free: set[int], likely: int | None
) -> int | None:
    """Return which of the slots that are ``free`` a request was in that ``told`` this.

    One that holds as many tokens: the ``likely`` one, or else the last; ``None`` if none does.
    """
    least, most = told.prompt_tokens, told.prompt_tokens + told.completion_tokens
    fits = [
        (one.number == likely, one.task or 0, one.number)
        for one in seen
        if one.number in free and not one.working and least <= (one.tokens or 0) <= most
    ]
    return max(fits)[2] if fits else None
