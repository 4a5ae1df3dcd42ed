"""One slot of a llama-server process, as far as the gateway knows it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from gateway.conversations.chain import NO_CHAIN, Chain
from gateway.conversations.index import Saved
from gateway.conversations.place import SlotView
from gateway.conversations.said import Said

#: Characters to a token, where only those are known; few, so that too much is saved.
CHARACTERS: Final = 3
#: In place of a key: nobody's, so that all may go on with it; or nobody knows whose.
NOBODY: Final = ""
UNKNOWN: Final = "?"


class Slot:
    """What is in one slot. ``prompt`` and ``tokens``: of the last request, where it told them.

    ``first_used`` is called when it is taken for the first time.
    """

    def __init__(self, number: int, first_used: Callable[[Slot], None] | None = None) -> None:
        self.number = number
        self._first_used = first_used
        self.busy = False
        self._view: SlotView | None = None  # made anew when it changes, and somebody looks
        self._coming = NO_CHAIN
        #: What the request says that it is busy with, if that goes on with what is in it.
        self.asking: Said | None = None
        self.asker = NOBODY  # whose that request is
        #: What was said of what is in it, if that is remembered; else what is known of it.
        self.said: Said | None = None
        self.held = NO_CHAIN
        #: The key whose prompt llama-server may have in it, whatever is known of that otherwise.
        self.inside = NOBODY
        self.restored = False  # something was read back into it for that request
        self.others: tuple[Slot, ...] = ()  # that its request has besides
        self.lock = asyncio.Lock()  # held while it is saved or restored
        self.last_used = 0.0
        self.unsaved = False
        self.read_back: Saved | None = None  # from which all that is in it was
        self.reading = 0.0  # seconds that took
        self.computed_ahead = False  # what is in it: to the last token
        self.timer: asyncio.TimerHandle | None = None
        #: Whether its request may be in another slot: llama-server has chosen.
        self.chosen = False
        #: Waits for the end of a request that was given up; it is busy until then.
        self.ending: asyncio.Task[None] | None = None
        self.forget()

    @property
    def chain(self) -> Chain:
        """That of what is in it."""
        return self.held if self.said is None else self.said.chain

    @property
    def coming(self) -> Chain:
        """That of the request that it is busy with."""
        return self._coming if self.asking is None else self.asking.chain

    @property
    def view(self) -> SlotView:
        """It as a decision sees it."""
        if (view := self._view) is None:
            chain = self.coming if self.busy else self.chain
            view = self._view = SlotView(self.number, chain, not self.busy, self.last_used)
        return view

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

    def hold(
        self,
        chain: Chain,
        owner: str,
        *,
        prompt: int | None = None,
        tokens: int = 0,
        said: Said | None = None,
    ) -> None:
        """Have this in it. ``said``: what has this ``chain``, to be remembered."""
        self.held, self.owner, self.prompt, self.said = chain, owner, prompt, said
        self.read_back, self.computed_ahead = None, False
        self.tokens = tokens or chain.size() // CHARACTERS
        self.told = tokens > 0
        self._view = None

    def hold_more(self, said: Said, prompt: int, tokens: int) -> None:
        """Have what ``said`` says in it, which went on with all that was there."""
        self.said, self.prompt, self.tokens, self.told = said, prompt, tokens, True
        self.read_back, self.computed_ahead, self.unsaved = None, False, True

    def take(self, chain: Chain, owner: str) -> None:
        """Be busy with a request of ``owner`` with ``chain``."""
        if self._first_used is not None:
            self._first_used(self)
            self._first_used = None
        self.busy, self._coming, self.asker, self.restored = True, chain, owner, False
        self.asking = self._view = None

    def go_on(self, said: Said) -> None:
        """Be busy with a request that says this, and so goes on with all that is in it."""
        self.busy, self.asking, self.asker, self.restored = True, said, said.owner, False
        self._view = None

    def release(self) -> None:
        """Be busy no more."""
        self.busy, self.asking = False, None
        self._view = None
