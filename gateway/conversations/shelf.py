"""All that is saved, and the folder it is in: what the slots of every model put and find there.

The event loop only ever waits for the disk; every access to it is in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from gateway.conversations.chain import Chain
from gateway.conversations.files import CacheFiles, Unusable
from gateway.conversations.index import FoundPrefix, Index, Saved
from gateway.plurals import counted
from gateway.tasks import spawn

_log = logging.getLogger(__name__)

#: Tokens of a prompt that are read in a second, where that was never seen.
_SPEED: Final = 500.0
#: Conversations in a row that were read back in vain, until no more are.
_FAILURES: Final = 3


@dataclass(slots=True)
class Counts:
    """Of one model, since the start: restores that were used, and what they spared."""

    hits: int = 0
    tokens: int = 0
    seconds: float = 0.0
    switched_off: str | None = None  # why nothing of it is saved any more


class Shelf:
    """That of one gateway. ``max_age`` in seconds."""

    def __init__(
        self,
        files: CacheFiles,
        *,
        max_age: float,
        min_tokens: int,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._files = files
        self._index = Index()
        self._max_age = max_age
        self.min_tokens = min_tokens
        self.wall = wall
        self.usable = False
        self._off: dict[str, str] = {}
        self._warned: set[str] = set()
        self._sizes: dict[str, float] = {}  # bytes of a token
        #: Of processes that are started alike: tokens that they read in a second, and how many
        #: conversations in a row were read back in vain.
        self._speeds: dict[str, float] = {}
        self._failures: dict[str, int] = defaultdict(int)
        self._keeping: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.counts: dict[str, Counts] = defaultdict(Counts)
        self.new_name, self.file_name = files.new_name, files.file_name

    async def open(self) -> None:
        """Take the folder, and find what is there. Without one everything else goes on."""
        try:
            found = await asyncio.to_thread(self._files.open)
        except Unusable as problem:
            _log.warning("conversations are not saved: %s", problem)
            return
        for saved in sorted(found, key=lambda saved: saved.used):
            self._index.add(saved)
            self._measure(saved)
            if saved.seconds > 0:
                self._speeds[saved.fingerprint] = saved.tokens / saved.seconds
        self.usable = True
        await self.make_room("", 0)
        mib = self._index.size / 2**20
        _log.info("%s saved, %.0f MiB", counted(len(self._index), "conversation"), mib)

    async def close(self) -> None:
        """Wait until everything is written, and let go of the folder."""
        self.usable = False
        await self.written()
        await asyncio.to_thread(self._files.close)

    async def written(self) -> None:
        """Return when the folder is as it is to be."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    def keep_track(self, task: asyncio.Task[Any]) -> None:
        """Have :meth:`close` wait for ``task``."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- looking -------------------------------------------------------------------------------

    def longest(self, fingerprint: str, chain: Chain) -> FoundPrefix | None:
        """Return what is saved of ``chain``, the longest beginning of it."""
        if not self.usable or fingerprint in self._off:
            return None
        return self._index.longest(fingerprint, chain)

    async def is_whole(self, saved: Saved) -> bool:
        """Return whether ``saved`` can be read; one that is damaged is removed."""
        if (keeping := self._keeping.get(saved.name)) is not None:
            await asyncio.wait([keeping])
        if not self._index.has(saved):
            return False
        if await asyncio.to_thread(self._files.is_whole, saved):
            return True
        _log.warning("a saved conversation of %s is damaged or gone: removed", saved.model)
        self.drop(saved)
        return False

    def off(self, fingerprint: str) -> str | None:
        """Return why nothing is saved for such a process, if that is so."""
        return self._off.get(fingerprint)

    # --- changing ------------------------------------------------------------------------------

    async def make_room(self, fingerprint: str, tokens: int) -> bool:
        """Return whether so many tokens may be saved; what is worth least goes for them."""
        if not self.usable:
            return False
        size = int(self._sizes.get(fingerprint, 0.0) * tokens)
        budget = await asyncio.to_thread(self._files.budget, self._index.size)
        if budget <= 0 or size > budget:
            self.warn_once("conversations are not saved: cache.max_size, or the disk, is too small")
            return False
        self._remove(self._index.outdated(self.wall(), budget=budget - size, max_age=self._max_age))
        return True

    def put(self, saved: Saved) -> None:
        """Keep what has just been written, in place of what it continues."""
        self._measure(saved)
        self._index.add(saved)
        task = spawn(self._keep(saved, saved.size), name=f"keep {saved.name}")
        self._keeping[saved.name] = task
        self.keep_track(task)

    async def _keep(self, saved: Saved, written: int) -> None:
        try:
            if not await asyncio.to_thread(self._files.keep, saved, written):
                self._index.remove(saved)
            elif self._index.has(saved):
                self._remove(self._index.contained(saved))
            else:
                self.discard(saved)  # removed while it was being written
        finally:
            del self._keeping[saved.name]

    def _measure(self, saved: Saved) -> None:
        if saved.tokens:
            self._sizes[saved.fingerprint] = saved.size / saved.tokens

    def used(self, saved: Saved) -> None:
        """Note that ``saved`` is of use."""
        saved.used = self.wall()

        def note() -> None:
            try:
                self._files.note(saved)
            except OSError as error:
                _log.warning("cannot note that a conversation was used: %s", error)

        self.keep_track(spawn(asyncio.to_thread(note), name=f"note {saved.name}"))

    def drop(self, saved: Saved) -> None:
        """Remove ``saved``."""
        self._remove([saved])

    def discard(self, saved: Saved) -> None:
        """Remove what was written for ``saved``, which was not put."""
        self.keep_track(
            spawn(asyncio.to_thread(self._files.remove, saved), name=f"remove {saved.name}")
        )

    def forget(self, *, goes: Callable[[Saved], bool]) -> int:
        """Remove everything that ``goes``; return how many conversations that were."""
        going = [saved for saved in self._index if goes(saved)]
        self._remove(going)
        return len(going)

    def _remove(self, several: Iterable[Saved]) -> None:
        for saved in several:
            self._index.remove(saved)
            self.discard(saved)

    def switch_off(self, model: str, fingerprint: str, reason: str) -> None:
        """Save and restore nothing any more for processes with this fingerprint."""
        self._off[fingerprint] = self.counts[model].switched_off = reason
        _log.warning("model %s: its conversations are not saved any more: %s", model, reason)
        self._remove([saved for saved in self._index if saved.fingerprint == fingerprint])

    def seconds(self, fingerprint: str, tokens: int) -> float:
        """Return what it takes such a process to compute so many, as far as that was seen."""
        return tokens / self._speeds.get(fingerprint, _SPEED)

    def learn_speed(self, fingerprint: str, speed: float) -> None:
        """Such a process has just read so many tokens of a prompt in a second."""
        before = self._speeds.get(fingerprint, speed)
        self._speeds[fingerprint] = 0.7 * before + 0.3 * speed

    def count_failure(self, model: str, fingerprint: str, what: str) -> None:
        """What was read back was of no use; after some in a row nothing is saved any more."""
        self._failures[fingerprint] += 1
        if self._failures[fingerprint] >= _FAILURES:
            self.switch_off(model, fingerprint, f"{what}, {_FAILURES} times in a row")

    def count_hit(self, model: str, fingerprint: str, tokens: int) -> None:
        """What was read back spared the computing of so many tokens."""
        self._failures.pop(fingerprint, None)
        seconds = self.seconds(fingerprint, tokens)
        counts = self.counts[model]
        counts.hits += 1
        counts.tokens += tokens
        counts.seconds += seconds

    def warn_once(self, text: str) -> None:
        """Log ``text``, unless that was done."""
        if text not in self._warned:
            self._warned.add(text)
            _log.warning("%s", text)
