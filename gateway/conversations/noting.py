"""Notes what requests have left in their slots, and what was there for them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from gateway.conversations.chain import Chain
from gateway.conversations.going_on import ANYTHING
from gateway.conversations.prewarming import Prewarming
from gateway.conversations.said import Recognised, Said
from gateway.conversations.shelf import Shelf
from gateway.conversations.slot import Slot
from gateway.conversations.verdict import Reading, still_fits

#: Tokens that have to be computed for a speed to be learnt from.
MEASURABLE: Final = 64
#: Bytes of requests that are remembered, of all slots of a process, and of one.
_REMEMBERED: Final = 4 * 2**20
_OF_ONE: Final = 128 * 2**10


class Noting:
    """Of one process of ``model``, with so many ``slots``."""

    def __init__(
        self, model: str, fingerprint: str, slots: int, shelf: Shelf, prewarming: Prewarming
    ) -> None:
        self._model = model
        self._fingerprint = fingerprint
        self._shelf = shelf
        self._prewarming = prewarming
        self.least_hit = max(1, shelf.min_tokens)
        #: The last conversation of which it was known by what it is recognised.
        self.recognised: Recognised | None = None
        self.most_said = min(_OF_ONE, _REMEMBERED // slots)

    def learn(self, tokens: int, seconds: float | None) -> None:
        """Learn how fast prompts are read: so many ``tokens`` took so long, if that is known."""
        if tokens >= MEASURABLE and seconds is not None and seconds > 0:
            self._shelf.speeds.learn(self._fingerprint, tokens / seconds)

    def done(
        self,
        slot: Slot,
        chain: Chain,
        owner: str,
        *,
        prompt: int | None,
        cached: int,
        completion: int,
        seconds: float | None,
        promised: int | None,
        alone: bool = True,
        begun: bool = False,
        said: Said | None = None,
        body: Mapping[str, Any] | None = None,
        raw: bool = False,
    ) -> None:
        """The request that took ``slot`` is over; give the slot back afterwards.

        ``prompt``: its tokens, of which ``cached`` had not to be computed, as its answer told;
        ``None``: there was no whole answer, but it had ``begun`` maybe, so that all of the prompt
        is there. ``seconds``: until its answer began. Not ``alone``: these are the numbers of
        several slots. ``said``: what has this ``chain``, if that is known; it is remembered if it
        comes with the ``body`` that it was parsed to. ``raw``: its prompt is no conversation.
        """
        slot.last_used = time.monotonic()
        read = Reading(slot.read_back, slot.reading) if slot.read_back is not None else None
        bound = ANYTHING if said is None else said.sent[: self.most_said]
        if prompt is None and not begun:
            common = chain.common(slot.chain.links)
            slot.hold(chain.first(common), owner, bound=bound)
            slot.unsaved = slot.unsaved and common > 0
        elif prompt is None or not alone:
            slot.hold(chain, owner, bound=bound)
            slot.unsaved = bool(chain.links)
        else:
            if said is not None:
                small = len(said.sent) <= self.most_said
                said = said if body is not None and small and said.remember(body) else None
            if said is not None:
                self.recognised = said.recognised
            tokens = prompt + completion
            slot.hold(chain, owner, prompt=prompt, tokens=tokens, said=said, bound=bound)
            if said is not None:
                slot.live = self._shelf.tally.live(self._model, self._fingerprint, owner)
            slot.unsaved = bool(chain.links)
            self.learn(prompt - cached, seconds)
            self.count(owner, cached, restored=slot.restored)
            if read is not None and not still_fits(
                self._shelf, read, chain, promised, cached, raw=raw
            ):
                self._prewarming.refuse(read.saved)

    def count(self, owner: str, cached: int, *, restored: bool) -> None:
        """Count ``cached`` tokens, which were of use to ``owner``: fewer than may be saved may be
        what all prompts of a template begin with.
        """
        if cached >= self.least_hit:
            spared = self._shelf.seconds(self._fingerprint, cached)
            self._shelf.tally.hit(self._model, owner, cached, spared, restored=restored)
