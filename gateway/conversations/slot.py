"""One slot of a llama-server process, as far as the gateway knows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

from gateway.conversations.chain import NO_CHAIN, Chain
from gateway.conversations.counts import Live
from gateway.conversations.going_on import ANYTHING, NOTHING, Bounds
from gateway.conversations.index import Saved
from gateway.conversations.place import SlotView
from gateway.conversations.said import Said

#: Characters to a token, where only those are known; few, so that too much is saved.
CHARACTERS: Final = 3
#: In place of a key: nobody's, so that all may go on with it; or nobody knows whose.
NOBODY: Final = ""
UNKNOWN: Final = "?"
#: A link that no chain has.
_MORE: Final = b""


class Slot:
    """What is in one slot. ``prompt`` and ``tokens``: of the last request, where it told them.

    ``first_used`` is called when it is taken for the first time. ``bound``: what begins with all
    that is in it, or will be: the bytes of a request, or of its beginning; one of ``bounds``.
    """

    def __init__(
        self,
        number: int,
        first_used: Callable[[Slot], None] | None = None,
        bounds: Bounds[Slot] | None = None,
    ) -> None:
        self.number = number
        self._first_used = first_used
        #: What a request names that goes on here, if there are several.
        self.named: int | None = None
        self._bounds = Bounds([self]) if bounds is None else bounds
        self.bound = self.left = NOTHING  # the second: where no request is
        #: What was said of what is in it, if the next request of that may have it at once.
        self.ready: Said | None = None
        self.busy = False
        self.seen: SlotView | None = None  # made anew when it changes, and somebody looks
        self._coming = NO_CHAIN
        #: What the request says that it is busy with, if that goes on with what is in it.
        self.asking: Said | None = None
        self.asker = NOBODY  # whose that request is
        #: What was said of what is in it, if that is remembered; else what is known of it.
        self.said: Said | None = None
        self.held = NO_CHAIN
        #: Where hits of that are noted, while it is remembered.
        self.live = Live()
        #: The key whose prompt llama-server may have in it, whatever is known of that otherwise.
        self.inside = NOBODY
        self.restored = False  # something was read back into it for that request
        self.others: tuple[Slot, ...] = ()  # that its request has besides
        self._lock = asyncio.Lock()
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
    def size(self) -> int:
        """Characters of what is in it, about."""
        return self.held.size() if self.said is None else self.said.base.size() + self.said.more

    @property
    def coming(self) -> Chain:
        """That of the request that it is busy with."""
        return self._coming if self.asking is None else self.asking.chain

    @property
    def view(self) -> SlotView:
        """It as a decision sees it."""
        if (view := self.seen) is None:
            chain = self.coming if self.busy else self.chain
            view = self.seen = SlotView(self.number, chain, not self.busy, self.last_used)
        return view

    def seen_with(self, chain: Chain, owner: str) -> SlotView:
        """Return it as a decision about ``chain`` of ``owner`` sees it: as :attr:`view`, but for
        what no other chain than one that it begins with needs to know exactly.
        """
        said = self.asking if self.busy else self.said
        if said is None or not (more := said.more) or not chain.links:
            return self.view_of(owner) if chain.shared else self.view
        base = said.base
        count = len(base.links)
        if len(chain.links) > count and chain.links[count - 1] == base.links[-1]:
            return self.view_of(owner) if chain.shared else self.view
        # Its later messages are not hashed for that: one link stands for them.
        held = Chain((*base.links, _MORE), (*base.sizes, base.sizes[-1] + more), base.shared)
        if chain.shared and not self._is_for(owner):
            held = held.own()
        return SlotView(self.number, held, not self.busy, self.last_used)

    @property
    def is_opening(self) -> bool:
        """Whether there is only what conversations have in common, as far as that is known."""
        return len(self.chain.links) <= self.chain.shared

    def have(self, inside: str) -> None:
        """Have what the key ``inside`` has asked in it; see :attr:`inside`."""
        self.inside = inside
        self.settle()

    def is_anothers(self, owner: str) -> bool:
        """Return whether there may be in it what another key than ``owner`` has asked."""
        return self.inside not in (NOBODY, owner)

    def view_of(self, owner: str) -> SlotView:
        """Return it as a decision for ``owner`` sees it, who goes on with nothing of another."""
        if self._is_for(owner):
            return self.view
        return self.view._replace(chain=self.view.chain.own())

    def _is_for(self, owner: str) -> bool:
        return (self.asker if self.busy else self.inside) in (NOBODY, owner)

    def forget(self) -> None:
        """Know nothing of its content any more."""
        self.hold(NO_CHAIN, "", bound=NOTHING)
        self.unsaved = False

    def hold(
        self,
        chain: Chain,
        owner: str,
        *,
        prompt: int | None = None,
        tokens: int = 0,
        said: Said | None = None,
        bound: bytes = ANYTHING,
    ) -> None:
        """Have this in it. ``said``: what has this ``chain``, to be remembered; else ``bound``
        begins with all of it.
        """
        self.held, self.owner, self.prompt, self.said = chain, owner, prompt, said
        self.read_back, self.computed_ahead = None, False
        self.tokens = tokens or chain.size() // CHARACTERS
        self.told = tokens > 0
        self.seen = None
        opening = len(chain.links) <= chain.shared  # that every conversation begins with
        self.left = NOTHING if opening else bound if said is None else said.text
        if not self.busy:
            self.show(self.left)
        self.settle()

    def show(self, bound: bytes) -> None:
        """Let ``bound`` begin with all that is in it, or will be."""
        self.bound = bound
        self._bounds.changed()

    def settle(self) -> None:
        """See whether it is :attr:`ready`, after any change to that."""
        said = self.said
        if said is not None and (self.busy or self.locked or said.owner != self.inside):
            said = None
        self.ready = said

    @property
    def locked(self) -> bool:
        """Whether it is being saved, restored or emptied."""
        return self._lock.locked()

    @asynccontextmanager
    async def alone(self) -> AsyncGenerator[None]:
        """Have it for oneself, to save, restore or empty it: no request that comes now takes it
        without a wait.
        """
        try:
            async with self._lock:
                self.ready = None
                yield
        finally:
            self.settle()

    def take(self, chain: Chain, owner: str) -> None:
        """Be busy with a request of ``owner`` with ``chain``."""
        if self._first_used is not None:
            self._first_used(self)
            self._first_used = None
        self.busy, self._coming, self.asker, self.restored = True, chain, owner, False
        self.asking = self.seen = self.ready = None
        self.show(NOTHING if len(chain.links) <= chain.shared else ANYTHING)

    def release(self) -> None:
        """Be busy no more."""
        self.busy, self.asking, self.restored, self.seen = False, None, False, None
        self.show(self.left)
        self.settle()
