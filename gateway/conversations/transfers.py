"""Writes what is in the slots of one llama-server process to files, and reads it back.

What was seen of llama-server b10434, and decides how this is done: a restore that fails leaves the
slot empty; a save of a slot that lost its content writes few tokens, or none, and says success, so
what was written is compared with what was answered.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Final

from gateway.backends.served import Served
from gateway.backends.slot_files import NAME_BYTES
from gateway.conversations.index import Saved
from gateway.conversations.shared import SHARED
from gateway.conversations.shelf import Shelf
from gateway.conversations.slot import NOBODY, Slot
from gateway.conversations.slot_action import act, number
from gateway.upstream import Upstream

#: Tokens that an answer and its slot may differ by: what was generated last isn't in it.
_TOLERANCE: Final = 16
#: The statuses with which llama-server says that it can't save what is in a slot: 404 is that of
#: one which is older than that.
_NOT_SUPPORTED: Final = (404, 501)
#: Refusals in a row until it isn't asked any more.
_REFUSALS: Final = 3


class Transfers:
    """Those of one start of ``backend``. ``ending``: whether its process is about to be ended."""

    def __init__(
        self, backend: Served, fingerprint: str, shelf: Shelf, ending: Callable[[], bool]
    ) -> None:
        self._backend = backend
        self._fingerprint = fingerprint
        self._shelf = shelf
        self._ending = ending
        self._refusals = 0

    async def save(self, slot: Slot, pool: Upstream, *, in_danger: bool) -> None:
        """Save what is in ``slot``, if that is worth it; ``in_danger``: else it is lost.

        Whoever calls this holds the slot's lock.
        """
        shelf = self._shelf
        if slot.tokens < shelf.min_tokens or shelf.off(self._fingerprint) is not None:
            slot.unsaved = False
        elif slot.is_opening and not slot.computed_ahead:
            slot.unsaved = False  # whatever else is there has no link: a prompt broken off
        elif shelf.is_worth_writing(
            self._fingerprint, slot.chain, slot.tokens, in_danger=in_danger
        ):
            slot.unsaved = False
            saved = self._saved_of(slot)
            async with shelf.saving(saved, slot.tokens) as may:
                if may:
                    await self._write(slot, saved, pool)

    def _saved_of(self, slot: Slot) -> Saved:
        """Return what is to be known of what is in ``slot``, but for what comes of its writing."""
        now = self._shelf.wall()
        return Saved(
            name=secrets.token_hex(NAME_BYTES),
            model=self._backend.spec.name,
            fingerprint=self._fingerprint,
            owner=slot.owner,
            chain=slot.chain,
            tokens=0,
            promised=slot.prompt,
            seconds=0.0,
            created=now,
            used=now,
        )

    async def _write(self, slot: Slot, saved: Saved, pool: Upstream) -> None:
        shelf, name = self._shelf, self._backend.spec.name
        # While it is written, llama-server may choose the slot for another request.
        held, told, least = slot.tokens, slot.told, (slot.prompt or 0) - _TOLERANCE
        began = time.perf_counter()
        size = shelf.writes.size(self._fingerprint, slot.tokens)
        said = await act(pool, slot.number, "save", shelf.new_name(saved), size)
        took = time.perf_counter() - began
        tokens, written = number(said, "n_saved"), number(said, "n_written")
        shelf.tally.transferred(name, saved.owner, written=written)
        if (problem := said.get("problem")) is not None:
            shelf.discard(saved)
            if said.get("status") in _NOT_SUPPORTED:
                self._count_refusal(problem)
            elif "status" in said or not self._ending():
                what = f"model {name}: a conversation could not be saved"
                shelf.warn_once(f"{what}: {problem}", about=what)
            return
        self._refusals = 0
        other = told and not least <= tokens <= held + _TOLERANCE
        if saved.is_opening:  # nothing of anybody's may be behind it
            other = tokens != held
        if tokens < shelf.min_tokens or other:
            shelf.discard(saved)  # something else is in the slot
            slot.forget()
            return
        saved.tokens, saved.size = tokens, written
        saved.seconds = shelf.seconds(self._fingerprint, tokens)
        shelf.writes.note(written, took)
        shelf.put(saved)

    def _count_refusal(self, problem: str) -> None:
        """llama-server can't save what is in a slot.

        Older ones save none of a model with a projector, or none with a picture or a sound in them
        (llama.cpp 25076, 26640): then the others go on being saved.
        """
        self._refusals += 1
        if self._refusals >= _REFUSALS:
            reason = (
                "this llama-server cannot save its conversations, or none with pictures or "
                f"sounds; a newer one may ({problem})"
            )
            self._shelf.switch_off(self._backend.spec.name, self._fingerprint, reason)

    async def restore(self, slot: Slot, saved: Saved) -> bool:
        """Read ``saved`` into ``slot``; return whether it is there. Raises ``UpstreamError``.

        Whoever calls this holds the slot's lock.
        """
        shelf, began = self._shelf, time.perf_counter()
        if not await shelf.is_whole(saved):
            return False
        slot.forget()  # llama-server empties one that it can't restore
        file, pool = shelf.file_name(saved), self._backend.pool
        said = await act(pool, slot.number, "restore", file, saved.size)
        if (problem := said.get("problem")) is not None:
            what = f"model {self._backend.spec.name}: a conversation could not be restored"
            shelf.warn_once(f"{what}: {problem}", about=what)
            if "status" not in said:
                shelf.drop(saved)  # it may have died of it: not once more
            return False  # else there may be no room in a memory that all slots share
        if number(said, "n_restored") != saved.tokens:
            shelf.drop(saved)
            return False
        slot.hold(saved.chain, saved.owner, prompt=saved.promised, tokens=saved.tokens)
        slot.have(NOBODY if saved.owner == SHARED else saved.owner)
        slot.read_back, slot.reading = saved, time.perf_counter() - began
        shelf.used(saved)
        return True
