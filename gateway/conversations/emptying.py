"""Empties slots, so that no key goes on with what another one asked.

llama-server itself goes on with whatever is in a slot, whoever asked it: a prompt that begins alike
is answered sooner, and told how many of its tokens were cached. So what another key left in a slot
is removed before a request gets it; what is worth it has been saved then.
"""

from __future__ import annotations

import asyncio
from typing import Final

from gateway.backends.served import Served
from gateway.conversations.shelf import Shelf
from gateway.conversations.slot import NOBODY, Slot
from gateway.conversations.slot_action import act, ask
from gateway.errors import GatewayError
from gateway.tasks import spawn
from gateway.upstream import ConnectFailed, ConnectionLost

#: Seconds for one token to be computed: what is at work in other slots comes between.
_PATIENCE: Final = 60.0
#: A prompt of one token, which takes the place of what was there; for no answer.
_OTHER_PROMPT: Final = {"prompt": [0], "n_predict": 0, "cache_prompt": False}


class Emptying:
    """Empties those of one start of ``backend``."""

    def __init__(self, backend: Served, shelf: Shelf) -> None:
        self._backend = backend
        self._shelf = shelf
        self._erases = True  # as far as that is known

    async def of_others(self, slot: Slot, owner: str, *, taken: bool) -> None:
        """Have nothing in ``slot`` that is not ``owner``'s, or every key's.

        ``taken``: by a request of ``owner``; else it is left alone when it is not idle any more.
        It goes on when whoever waits for it goes away: llama-server does so too.
        """
        if slot.is_anothers(owner):
            name = f"empty slot {slot.number} of {self._backend.spec.name}"
            emptying = spawn(self._empty_alone(slot, owner, taken), name=name)
            self._shelf.keep_track(emptying)
            await asyncio.shield(emptying)

    async def _empty_alone(self, slot: Slot, owner: str, taken: bool) -> None:
        async with slot.alone():
            asks = slot.asker == owner if taken else not slot.busy  # or it was given up meanwhile
            if asks and slot.is_anothers(owner):
                slot.forget()
                try:
                    await self._empty(slot.number)
                except GatewayError:
                    return  # the process has gone: so will be found by who sends the request
                slot.have(NOBODY)

    async def _empty(self, number: int) -> None:
        pool = self._backend.pool
        if self._erases:
            said = await act(pool, number, "erase")
            if "problem" not in said:
                return
            self._erases = "status" not in said  # older ones refuse where there is a projector
        try:
            await ask(pool, "/completion", {**_OTHER_PROMPT, "id_slot": number}, _PATIENCE)
        except (ConnectFailed, ConnectionLost):
            raise  # it has just ended
        except (GatewayError, ValueError) as error:
            self._cannot(error)

    def _cannot(self, error: Exception) -> None:
        """Say that the next key may go on with it: a prompt is answered all the same."""
        model = self._backend.spec.name
        reason = f"this llama-server empties no slot: {str(error)[:200]}"
        self._shelf.tally.models[model].not_private = reason
        what = f"model {model}: a key may notice what another one asked"
        self._shelf.warn_once(f"{what}: {reason}", about=what)
