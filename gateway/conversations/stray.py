"""A request whose slots llama-server chooses, and which may overwrite what is in any of them.

Forms, several prompts in one request, and whatever administrators send to a llama-server itself.
What it may overwrite is saved before; nothing is believed of the slots afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.backends.backend import Backend
from gateway.conversations.line import Lendable
from gateway.conversations.slots import ConversationSlots
from gateway.errors import GatewayError


class Stray:
    """One such request, between :meth:`begin` and :meth:`end` as a turn.

    ``slots_of`` returns the slots of a backend, if they can be saved.
    """

    __slots__ = ("_slots", "_slots_of")

    def __init__(self, slots_of: Callable[[Backend], ConversationSlots | None]) -> None:
        self._slots_of = slots_of
        self._slots: ConversationSlots | None = None

    async def begin(self, backend: Backend, target: str, lease: Lendable) -> None:
        """Save what may be overwritten."""
        slots = self._slots = self._slots_of(backend)
        if slots is not None:
            try:
                await slots.expect_stray()
            except GatewayError:
                return  # the process has gone: so will be found by who sends the request

    def end(self, ended: object) -> None:
        """It is over, however that came."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.forget_idle()
