"""Computes what the keys share, before it is asked for again, and has it saved.

That happens once for each personality that was used, while nobody asks anything of the model. From
then on the file is read back for the first question of every conversation, also right after a load.
A request that comes meanwhile has it broken off; it is done the next time that nobody asks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final, Protocol

import orjson

from gateway.backends.backend import Backend
from gateway.bounded_cache import BoundedCache
from gateway.conversations.chain import Chain
from gateway.conversations.shared import SharedPrefix
from gateway.conversations.shelf import Shelf
from gateway.conversations.slot import Slot
from gateway.conversations.slot_queue import SlotQueue
from gateway.errors import GatewayError
from gateway.tasks import spawn
from gateway.upstream import UpstreamRequest

_log = logging.getLogger(__name__)

_JSON: Final = b"Content-Type: application/json\r\n"
#: Seconds for a template to be applied or a text to be split, and for a prefix to be computed.
_SHORT: Final = 30.0
_LONG: Final = 600.0
#: Tokens that are computed at once: a request that comes waits for so many at most.
_STEP: Final = 256
#: Two questions that have nothing in common, so that prompts differ where a question begins.
_QUESTIONS: Final = ("a", "0")
#: Prefixes of which it is remembered that nothing is to be done about them.
_REMEMBERED: Final = 1024


class WarmedSlots(Protocol):
    """What is needed of :class:`gateway.conversations.slots.ConversationSlots`."""

    backend: Backend
    fingerprint: str

    @property
    def current(self) -> bool: ...
    async def save_shared(self, slot: Slot, chain: Chain, tokens: int, /) -> None: ...
    def free(self, slot: Slot, /) -> None: ...


class Prewarming:
    """That of one process: ``owner``, whose ``slots`` these are."""

    def __init__(
        self, owner: WarmedSlots, slots: Sequence[Slot], queue: SlotQueue[Slot], shelf: Shelf
    ) -> None:
        self._owner = owner
        self._slots = slots
        self._queue = queue
        self._shelf = shelf
        self._wanted: dict[bytes, tuple[Chain, SharedPrefix]] = {}
        self._settled: BoundedCache[bytes, bool] = BoundedCache(_REMEMBERED)
        self._task: asyncio.Task[None] | None = None

    def want(self, chain: Chain, prefix: SharedPrefix) -> None:
        """Have ``prefix`` saved some time, which a request began with."""
        link = chain.links[0]
        if not (link in self._settled or link in self._wanted or self._is_saved(chain)):
            self._wanted[link] = (chain, prefix)

    async def run(self) -> None:
        """Compute what is wanted, unless a request comes."""
        while self._task is None and self._wanted:
            chain, prefix = next(iter(self._wanted.values()))
            name = f"compute a personality of {self._owner.backend.spec.name}"
            self._task = task = spawn(self._compute(chain, prefix), name=name)
            try:
                await asyncio.wait([task])
            finally:
                self._task = None
            if chain.links[0] in self._wanted:
                return  # not now

    def give_way(self) -> None:
        """A request comes, or the process is to be ended."""
        if self._task is not None:
            self._task.cancel()

    async def _compute(self, chain: Chain, prefix: SharedPrefix) -> None:
        try:
            tokens = [] if self._is_saved(chain) else await self._tokens_of(prefix)
            if len(tokens) >= self._shelf.min_tokens:
                slot = self._spare_slot(chain)
                if slot is None:
                    return
                await self._compute_in(slot, chain, tokens)
        except (GatewayError, ValueError, LookupError, TypeError) as error:
            _log.info("a personality was not computed ahead: %s", type(error).__name__)
        self._wanted.pop(chain.links[0], None)
        if not self._is_saved(chain):
            self._settled[chain.links[0]] = True  # too short, or there is no room: not once more

    async def _compute_in(self, slot: Slot, chain: Chain, tokens: list[int]) -> None:
        slot.take(chain)
        try:
            whole = slot.chain.common(chain.links) > 0  # it has only to be cut off
            slot.forget()
            # llama-server looks only between batches whether somebody still waits for an answer.
            for end in (*range(len(tokens) if whole else _STEP, len(tokens), _STEP), len(tokens)):
                asked = {"prompt": tokens[:end], "n_predict": 0, "id_slot": slot.number}
                await self._ask("/completion", {**asked, "cache_prompt": True}, _LONG)
            await self._owner.save_shared(slot, chain, len(tokens))
        finally:
            self._owner.free(slot)

    def _spare_slot(self, chain: Chain) -> Slot | None:
        """Return the slot that may be used for ``chain``, ``None`` if a request is there, or each
        holds something that would be lost.
        """
        if not self._owner.current or len(self._queue) or any(slot.busy for slot in self._slots):
            return None
        spare = [slot for slot in self._slots if self._may_be_emptied(slot)]

        def order(slot: Slot) -> tuple[bool, bool, float]:
            return not slot.chain.common(chain.links), bool(slot.chain.links), slot.last_used

        return min(spare, key=order, default=None)

    def _may_be_emptied(self, slot: Slot) -> bool:
        if slot.unsaved or slot.lock.locked():
            return False
        return slot.tokens < self._shelf.min_tokens or self._is_saved(slot.chain)

    def _is_saved(self, chain: Chain) -> bool:
        """Return whether all of ``chain`` can be read back."""
        found = self._shelf.longest(self._owner.fingerprint, chain)
        return (0 if found is None else found.links) == len(chain.links)

    async def _tokens_of(self, prefix: SharedPrefix) -> list[int]:
        """Return the tokens with which every prompt begins that begins with ``prefix``."""
        several: list[list[int]] = []
        for question in _QUESTIONS:
            messages = [
                {"role": "system", "content": prefix.text},
                {"role": "user", "content": question},
            ]
            written = await self._ask(
                "/apply-template", {"messages": messages, **prefix.arguments()}, _SHORT
            )
            asked = {"content": written["prompt"], "add_special": True, "parse_special": True}
            several.append((await self._ask("/tokenize", asked, _SHORT))["tokens"])
        common = 0
        for one, other in zip(*several, strict=False):
            if one != other:
                break
            common += 1
        return several[0][:common]

    async def _ask(self, path: str, body: dict[str, Any], timeout: float) -> dict[str, Any]:
        request = UpstreamRequest("POST", path, _JSON, orjson.dumps(body))
        fetched = await self._owner.backend.pool.fetch(request, timeout=timeout)
        said = orjson.loads(fetched.body)
        if fetched.status != 200 or not isinstance(said, dict):
            raise ValueError(f"status {fetched.status}")
        return said
