"""Where what is saved is: a folder of this machine, or one of a node."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Protocol

from gateway.conversations.files import CacheFiles
from gateway.conversations.index import Saved


class Store(Protocol):
    """One folder, and what is known of each file in it."""

    @property
    def where(self) -> str:
        """What it is called in logs and reports."""

    @property
    def disk(self) -> int:
        """Bytes that its disk has in all, once that is known."""

    @property
    def problem(self) -> str | None:
        """Why it can't be reached now, if that is so."""

    async def open(self) -> list[Saved]:
        """Return what is saved. Raises :class:`Unusable`."""

    async def close(self) -> None:
        """Let another gateway have it."""

    async def is_held(self) -> bool:
        """Return whether it is still the one that was opened."""

    async def gone(self) -> Collection[str]:
        """Have nothing there that isn't known here; return the names of what is known, and is not
        there any more.
        """

    async def sweep_late(self, older: float) -> None:
        """Remove what llama-server began to write ``older`` seconds ago, and nobody waits for."""

    async def budget(self, held: int) -> int:
        """Return how many bytes it may have, of which ``held`` are there already."""

    async def keep(self, saved: Saved, written: int) -> bool:
        """Keep what llama-server wrote, ``written`` bytes; return False if it isn't all there."""

    async def note(self, saved: Saved) -> None:
        """Write down what is known of ``saved``, unless it was removed. Raises ``OSError``."""

    async def is_whole(self, saved: Saved) -> bool | None:
        """Return whether its file is as it was written; None: nobody could be asked."""

    async def remove(self, *several: Saved) -> None:
        """Remove ``several``, as far as they are there."""


class HereStore:
    """That of this machine, in ``files``. Whatever touches the disk is done in a thread."""

    problem: str | None = None

    def __init__(self, files: CacheFiles) -> None:
        self._files = files
        self.where = str(files.folder)

    @property
    def disk(self) -> int:
        """See :class:`Store`, as for all that follows."""
        return self._files.disk

    async def open(self) -> list[Saved]:
        return await asyncio.to_thread(self._files.open)

    async def close(self) -> None:
        await asyncio.to_thread(self._files.close)

    async def is_held(self) -> bool:
        return await asyncio.to_thread(self._files.is_held)

    async def gone(self) -> Collection[str]:
        return ()

    async def sweep_late(self, older: float) -> None:
        await asyncio.to_thread(self._files.sweep_late, older)

    async def budget(self, held: int) -> int:
        return await asyncio.to_thread(self._files.budget, held)

    async def keep(self, saved: Saved, written: int) -> bool:
        return await asyncio.to_thread(self._files.keep, saved, written)

    async def note(self, saved: Saved) -> None:
        await asyncio.to_thread(self._files.note, saved)

    async def is_whole(self, saved: Saved) -> bool | None:
        return await asyncio.to_thread(self._files.is_whole, saved)

    async def remove(self, *several: Saved) -> None:
        await asyncio.to_thread(self._files.remove, *several)
