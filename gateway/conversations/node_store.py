"""What is saved on the disk of a node: the files are there, and what each is, here.

So what is deleted here is deleted, though the node be away: it can't be found any more, and when
the node is met again it removes whatever isn't known here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Final, Literal

from gateway.backends.nodes import Room, SavedSlots
from gateway.backends.slot_files import budget
from gateway.conversations.index import Saved
from gateway.conversations.node_facts import NodeFacts
from gateway.errors import GatewayError

_log = logging.getLogger(__name__)

#: What a folder may have, in bytes, while nobody knows how much room there is.
_UNKNOWN: Final = 2**62


class NodeStore:
    """That of the node which ``slots`` are asked of; what they are is in ``facts``."""

    def __init__(
        self, facts: NodeFacts, slots: SavedSlots, max_size: int | Literal["auto"]
    ) -> None:
        self.where = str(facts.folder)
        self._node = f"the node {slots.node}"
        self._slots = slots
        self._max_size = max_size
        self._facts = facts
        #: What is, or is about to be, kept there: bytes, by name.
        self._known: dict[str, int] = {}
        self._keeping: set[str] = set()
        self._meeting = asyncio.Lock()
        self._room: Room | None = None
        self._held_then = 0
        self._told: set[str] = set()

    @property
    def disk(self) -> int:
        """See :class:`gateway.conversations.store.Store`, as for all that follows."""
        room = self._slots.room
        return 0 if room is None else room.total

    @property
    def problem(self) -> str | None:
        slots = self._slots
        if slots.problem is not None or slots.room is not None:
            return slots.problem
        return "it doesn't say how much room is on its disk"

    async def open(self) -> list[Saved]:
        found = await asyncio.to_thread(self._facts.open)
        self._known = {saved.name: saved.size for saved in found}
        return found

    async def close(self) -> None:
        await asyncio.to_thread(self._facts.close)

    async def is_held(self) -> bool:
        return await asyncio.to_thread(self._facts.is_held)

    async def gone(self) -> Collection[str]:
        async with self._meeting:
            unsure = frozenset(self._keeping)
            try:
                gone = await self._slots.meet(dict(self._known))
            except GatewayError as error:
                _log.debug("%s did not say what it has saved: %s", self._node, error.message)
                return ()
        return [name for name in gone if name not in unsure]

    async def sweep_late(self, older: float) -> None:
        """Leave that to the node."""

    async def budget(self, held: int) -> int:
        room = self._slots.room
        if room is None:
            return _UNKNOWN
        if room is not self._room:
            self._room, self._held_then = room, held
        free = room.free - (held - self._held_then)  # since that was told
        return budget(held, max(0, free), self._max_size)

    async def keep(self, saved: Saved, written: int) -> bool:
        async with self._meeting:  # or it would be taken for something that isn't known here
            self._known[saved.name] = written
            self._keeping.add(saved.name)
        try:
            check = await self._slots.keep(saved.name, written)
            if check is None:
                self._known.pop(saved.name, None)
                return False
            saved.check, saved.size = check, written
            await asyncio.to_thread(self._facts.keep, saved)
        except (GatewayError, OSError) as error:
            self._warn_once("a conversation cannot be kept", error)
            await self.remove(saved)
            return False
        finally:
            self._keeping.discard(saved.name)
        return True

    async def note(self, saved: Saved) -> None:
        await asyncio.to_thread(self._facts.note, saved)

    async def is_whole(self, saved: Saved) -> bool | None:
        try:
            return await self._slots.is_whole(saved.name, saved.size, saved.check)
        except GatewayError as error:
            self._warn_once("a conversation cannot be looked at", error)
            return None

    async def remove(self, *several: Saved) -> None:
        names = [saved.name for saved in several]
        for name in names:
            self._known.pop(name, None)
        await asyncio.to_thread(self._facts.remove, names)
        try:
            await self._slots.remove(names)
        except GatewayError as error:  # it is done when the node is met again
            _log.debug("%s is to remove files later: %s", self._node, error.message)

    def _warn_once(self, what: str, error: Exception) -> None:
        if what not in self._told:
            self._told.add(what)
            _log.warning("%s: %s: %s", self._node, what, error)
