"""A request whose slots llama-server chooses, and which may overwrite what is in any of them.

Forms, several prompts in one request, and whatever administrators send to a llama-server itself.
What it may overwrite is saved before; nothing is believed of the slots afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.backends.served import Served
from gateway.conversations.chain import NO_CHAIN
from gateway.conversations.chosen import clear, tell
from gateway.conversations.ended import Ended
from gateway.conversations.slot import Slot
from gateway.conversations.slot_queue import Lendable
from gateway.conversations.slots import ConversationSlots
from gateway.errors import GatewayError


class Stray:
    """One such request, between :meth:`begin` and :meth:`end` as a turn.

    ``slots_of`` returns the slots of a backend, if they can be saved; ``owner``: the key that asks;
    ``count``: slots it needs.
    """

    __slots__ = ("_count", "_owner", "_slot", "_slots", "_slots_of")

    #: Nothing is read back for it.
    restored: Final = False
    named: Final = None

    def __init__(
        self,
        slots_of: Callable[[Served], ConversationSlots | None],
        owner: str,
        count: int = 1,
    ) -> None:
        self._slots_of = slots_of
        self._count = count
        self._owner = owner
        self._slots: ConversationSlots | None = None
        self._slot: Slot | None = None

    def reach(self, backend: Served) -> int:
        """Return 0: nothing is read back for it."""
        return 0

    def go_on(self, backend: Served) -> bool:
        """It goes on with nothing."""
        return False

    async def begin(self, backend: Served, target: str, lease: Lendable) -> None:
        """Wait for as many slots, and save what may be overwritten."""
        slots = self._slots_of(backend)
        if slots is not None:
            try:
                self._slot = await self._acquire(slots, lease)
            except GatewayError:
                return  # the process has gone: so will be found by who sends the request
            self._slots = slots

    async def _acquire(self, slots: ConversationSlots, lease: Lendable) -> Slot:
        """llama-server may put it in other slots, while those that were taken stay free: so all
        that is in slots is saved before, and what is another key's removed.
        """
        slot, _ = await slots.acquire(NO_CHAIN, self._owner, lease, count=self._count)
        slot.chosen = True
        try:
            await clear(slots, [idle for idle in slots.all if not idle.busy], self._owner)
        except BaseException:
            slots.free(slot)
            raise
        tell(slots, slot, self._owner)
        slots.look_again()
        return slot

    def began(self) -> None:
        """Its answer has begun."""

    def end(self, ended: Ended) -> None:
        """It is over, however that came."""
        slots, slot = self._slots, self._slot
        self._slots = self._slot = None
        if slots is not None and slot is not None:
            told = ended.usage if self._count == 1 else None  # else those of several prompts
            cached = told.cached_tokens if told is not None else 0
            slots.noting.count(self._owner, cached, restored=False)
            slot.forget()
            slots.forget_idle()  # whatever it has not overwritten may be read back
            slots.give_back(slot, ended)
