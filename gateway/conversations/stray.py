"""A request whose slots llama-server chooses, and which may overwrite what is in any of them.

Forms, several prompts in one request, and whatever administrators send to a llama-server itself.
What it may overwrite is saved before; nothing is believed of the slots afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.backends.backend import Backend
from gateway.conversations.slot import Slot
from gateway.conversations.slot_queue import Lendable
from gateway.conversations.slots import ConversationSlots, RequestEnd
from gateway.errors import GatewayError


class Stray:
    """One such request, between :meth:`begin` and :meth:`end` as a turn.

    ``slots_of`` returns the slots of a backend, if they can be saved; ``count``: slots it needs.
    """

    __slots__ = ("_count", "_slot", "_slots", "_slots_of")

    def __init__(
        self, slots_of: Callable[[Backend], ConversationSlots | None], count: int = 1
    ) -> None:
        self._slots_of = slots_of
        self._count = count
        self._slots: ConversationSlots | None = None
        self._slot: Slot | None = None

    async def begin(self, backend: Backend, target: str, lease: Lendable) -> None:
        """Wait for as many slots, and save what may be overwritten."""
        slots = self._slots_of(backend)
        if slots is not None:
            try:
                self._slot = await slots.acquire_stray(lease, self._count)
            except GatewayError:
                return  # the process has gone: so will be found by who sends the request
            self._slots = slots

    def end(self, ended: RequestEnd) -> None:
        """It is over, however that came."""
        slots, slot = self._slots, self._slot
        self._slots = self._slot = None
        if slots is not None and slot is not None:
            slots.stray_done(slot)
            slots.give_back(slot, ended, chosen=True)
