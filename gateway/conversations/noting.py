"""Notes what requests have left in their slots, and what was there for them."""

from __future__ import annotations

import time
from typing import Final

from gateway.conversations.chain import Chain
from gateway.conversations.ended import AnswerUsage
from gateway.conversations.prewarming import Prewarming
from gateway.conversations.said import Said
from gateway.conversations.shelf import Shelf
from gateway.conversations.slot import Slot
from gateway.conversations.verdict import Reading, still_fits

#: Tokens that have to be computed for a speed to be learnt from.
_MEASURABLE: Final = 64
#: Bytes of requests that are remembered as they were parsed, of all slots of a process, and of one.
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
        self._least_hit = max(1, shelf.min_tokens)
        self._most_said = min(_OF_ONE, _REMEMBERED // slots)

    def went_on(self, slot: Slot, said: Said, told: AnswerUsage, seconds: float | None) -> None:
        """A request that went on with all that is in ``slot`` has ended as it should.

        The same as :meth:`done`, in fewer steps: this is what most requests do.
        """
        slot.last_used = time.monotonic()
        prompt, cached = told.prompt_tokens, told.cached_tokens
        slot.hold_more(said, prompt, prompt + told.completion_tokens)
        if said.size > self._most_said:
            slot.said, slot.held = None, said.chain
        if seconds is not None and prompt - cached >= _MEASURABLE and seconds > 0:
            self._shelf.speeds.learn(self._fingerprint, (prompt - cached) / seconds)
        if cached >= self._least_hit:
            self.count(said.owner, cached, restored=False)

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
    ) -> None:
        """The request that took ``slot`` is over; give the slot back afterwards.

        ``prompt``: its tokens, of which ``cached`` had not to be computed, as its answer told;
        ``None``: there was no whole answer, but it had ``begun`` maybe, so that all of the prompt
        is there. ``seconds``: until its answer began. Not ``alone``: these are the numbers of
        several slots. ``said``: what has this ``chain``, if that can be compared.
        """
        slot.last_used = time.monotonic()
        read = Reading(slot.read_back, slot.reading) if slot.read_back is not None else None
        if prompt is None and not begun:
            common = chain.common(slot.chain.links)
            slot.hold(chain.first(common), owner)
            slot.unsaved = slot.unsaved and common > 0
        elif prompt is None or not alone:
            slot.hold(chain, owner)
            slot.unsaved = bool(chain.links)
        else:
            if said is not None and (said.size > self._most_said or not chain.links):
                said = None
            slot.hold(chain, owner, prompt=prompt, tokens=prompt + completion, said=said)
            slot.unsaved = bool(chain.links)
            if prompt - cached >= _MEASURABLE and seconds is not None and seconds > 0:
                self._shelf.speeds.learn(self._fingerprint, (prompt - cached) / seconds)
            self.count(owner, cached, restored=slot.restored)
            if read is not None and not still_fits(self._shelf, read, chain, promised, cached):
                self._prewarming.refuse(read.saved)

    def count(self, owner: str, cached: int, *, restored: bool) -> None:
        """Count ``cached`` tokens, which were of use to ``owner``."""
        if cached > 0:
            name, fingerprint = self._model, self._fingerprint
            self._shelf.count_hit(name, fingerprint, owner, cached, restored=restored)
