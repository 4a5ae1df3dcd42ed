"""One slot of a llama-server process, as far as the gateway knows it."""

from __future__ import annotations

import asyncio
from typing import Final

from gateway.conversations.chain import NO_CHAIN, Chain
from gateway.conversations.index import Saved
from gateway.conversations.place import SlotView

#: Characters to a token, where only those are known; few, so that too much is saved.
CHARACTERS: Final = 3
#: In place of a key: nobody's, so that all may go on with it; or nobody knows whose.
NOBODY: Final = ""
UNKNOWN: Final = "?"


class Slot:
    """What is in one slot. ``prompt`` and ``tokens``: of the last request, where it told them."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.busy = False
        self.view = SlotView(number, NO_CHAIN)  # as a decision sees it; made anew when it changes
        self.coming = NO_CHAIN  # of the request that it is busy with
        self.asker = NOBODY  # and whose that is
        #: The key whose prompt llama-server may have in it, whatever is known of that otherwise.
        self.inside = NOBODY
        self.restored = False  # something was read back into it for that request
        self.others: tuple[Slot, ...] = ()  # that its request has besides
        self.lock = asyncio.Lock()  # held while it is saved or restored
        self.last_used = 0.0
        self.unsaved = False
        self.read_back: Saved | None = None  # from which all that is in it was
        self.computed_ahead = False  # what is in it: to the last token
        self.timer: asyncio.TimerHandle | None = None
        #: Whether its request may be in another slot: llama-server has chosen.
        self.chosen = False
        #: Waits for the end of a request that was given up; it is busy until then.
        self.ending: asyncio.Task[None] | None = None
        self.forget()

    @property
    def is_opening(self) -> bool:
        """Whether there is only what conversations have in common, as far as that is known."""
        return len(self.chain.links) <= self.chain.shared

    def is_anothers(self, owner: str) -> bool:
        """Return whether there may be in it what another key than ``owner`` has asked."""
        return self.inside not in (NOBODY, owner)

    def view_of(self, owner: str) -> SlotView:
        """Return it as a decision for ``owner`` sees it, who goes on with nothing of another."""
        inside = self.asker if self.busy else self.inside
        if inside in (NOBODY, owner):
            return self.view
        return self.view._replace(chain=self.view.chain.own())

    def forget(self) -> None:
        """Know nothing of its content any more."""
        self.hold(NO_CHAIN, "")
        self.unsaved = False

    def hold(self, chain: Chain, owner: str, *, prompt: int | None = None, tokens: int = 0) -> None:
        """Have this in it."""
        self.chain, self.owner, self.prompt = chain, owner, prompt
        self.read_back, self.computed_ahead = None, False
        self.tokens = tokens or chain.size() // CHARACTERS
        self.told = tokens > 0
        if not self.busy:
            self.view = SlotView(self.number, chain, True, self.last_used)

    def take(self, chain: Chain, owner: str) -> None:
        """Be busy with a request of ``owner`` with ``chain``."""
        self.busy, self.coming, self.asker, self.restored = True, chain, owner, False
        self.view = SlotView(self.number, chain, False)

    def release(self) -> None:
        """Be busy no more."""
        self.busy = False
        self.view = SlotView(self.number, self.chain, True, self.last_used)
