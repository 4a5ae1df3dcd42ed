"""All that is saved, and the folder it is in: what the slots of every model put and find there.

The event loop only ever waits for the disk; every access to it is in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final

from gateway.conversations.chain import Chain
from gateway.conversations.counts import CacheReport, Spared, Tally, all_spared, spared
from gateway.conversations.files import CacheFiles, Unusable
from gateway.conversations.in_vain import InVain
from gateway.conversations.index import (
    FoundPrefix,
    Index,
    Saved,
    in_steps,
    least_valuable,
    mend_times,
    shown_openings,
    sorted_out,
    tidy_up,
    too_old,
)
from gateway.conversations.speeds import Speeds
from gateway.conversations.worth import Writes, new_tokens
from gateway.plurals import counted
from gateway.tasks import cancel_and_wait, spawn, spawn_lasting

_log = logging.getLogger(__name__)

#: Why nothing is saved where llama-server could write.
_NO_ROOM: Final = "cache.max_size, or the disk, is too small"
#: Seconds between two looks at the folder and its disk.
_UPKEEP_EVERY: Final = 60.0
#: Looks until something may be too old: a clock may be wrong until the network is there.
_SETTLED: Final = 10
#: Seconds after which nobody waits for what llama-server writes.
_LATE: Final = 600.0
_TOO_SMALL: Final = f"conversations are not saved: {_NO_ROOM}"
#: Conversations that are removed in one step of the event loop: it takes a millisecond or two.
_AT_ONCE: Final = 500


class Shelf:
    """That of one gateway. ``max_age`` and ``upkeep_every`` in seconds."""

    def __init__(
        self,
        files: CacheFiles,
        *,
        max_age: float,
        min_tokens: int,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        upkeep_every: float = _UPKEEP_EVERY,
    ) -> None:
        self._files = files
        self._index = Index()
        #: Is another number once there is more.
        self.changes = 0
        self._max_age = max_age
        self.min_tokens = min_tokens
        self.wall = wall
        self._steady = steady
        self._upkeep_every = upkeep_every
        self.usable = False
        self._problem: str | None = "the folder was not looked at yet"
        self._off: dict[str, str] = {}
        self._warned: set[str] = set()
        self.speeds = Speeds()
        self.seconds = self.speeds.seconds
        self.in_vain = InVain()
        self.writes = Writes(steady())
        #: What is being written, and its expected size.
        self._saving: dict[Saved, int] = {}
        self._forgotten: set[Saved] = set()
        self._keeping: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._removing: set[asyncio.Task[Any]] = set()
        self._upkeep: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self._closed = False
        #: Whether a key still exists: nothing is kept of others.
        self.is_known: Callable[[str], bool] = lambda owner: True
        self.tally = Tally()
        self.new_name, self.file_name = files.new_name, files.file_name

    async def open(self) -> None:
        """Take the folder, and find what is there. Without one everything else goes on."""
        await self._open()
        self._upkeep = spawn_lasting(self._keep_up, name="look after saved conversations")

    async def _open(self) -> None:
        if self._closed:
            return
        try:
            found = await asyncio.to_thread(lambda: sorted_out(self._files.open(), self.wall()))
        except Unusable as problem:
            self._problem = str(problem)
            self.warn_once(f"conversations are not saved: {problem}")
            return
        self._index, self._problem = found.everything, None
        self.changes += 1
        self.writes.note(found.written)
        for saved in found.last:
            self.writes.know(saved)
            if saved.seconds > 0:
                self.speeds.know(saved.fingerprint, saved.tokens / saved.seconds)
        self.usable = True
        await self._trim()
        mib = self._index.size / 2**20
        _log.info("%s saved, %.0f MiB", counted(len(self._index), "conversation"), mib)

    async def close(self) -> None:
        """Wait until everything is written, and let go of the folder."""
        async with self._opening:
            self.usable, self._closed = False, True
            await cancel_and_wait(self._upkeep)
        await self.written()
        await asyncio.to_thread(self._files.close)

    async def written(self) -> None:
        """Return when the folder is as it is to be."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def removed(self) -> None:
        """Return when what was forgotten is gone, but for what is still being written."""
        for _ in range(2):  # what was being kept is removed after that
            if waiting := {*self._removing, *self._keeping.values()}:
                await asyncio.wait(waiting)

    def keep_track(self, task: asyncio.Task[Any]) -> None:
        """Have :meth:`close` wait for ``task``."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- upkeep --------------------------------------------------------------------------------

    async def _keep_up(self) -> None:
        """See to it that the cache shrinks when the disk fills, that what is too old goes, and
        that a folder which was removed, or could not be used, is taken again when that is
        possible.
        """
        passed = 0
        while True:
            await asyncio.sleep(self._upkeep_every)
            passed += 1
            if not await self._is_held():
                continue
            await self._trim()
            await asyncio.to_thread(self._files.sweep_late, _LATE)
            if passed >= _SETTLED:
                await self._let_go_of_old()

    async def _let_go_of_old(self) -> None:
        now, everything = self.wall(), tuple(self._index)
        for saved in await asyncio.to_thread(mend_times, everything, now):
            self._note(saved)
        self._remove(await asyncio.to_thread(too_old, everything, now, self._max_age))

    async def _trim(self) -> None:
        """Remove what is worth least, as far as there is no room for it any more."""
        await self._fit(await self._budget())

    async def _budget(self) -> int:
        return await asyncio.to_thread(self._files.budget, self._index.size)

    async def _fit(self, budget: int) -> None:
        excess = self._index.size + sum(self._saving.values()) - budget
        if excess > 0:
            everything, now = tuple(self._index), self.wall()
            self._remove(await asyncio.to_thread(least_valuable, everything, now, excess))

    async def _is_held(self) -> bool:
        """Return whether the folder is there, made anew if it was removed."""
        if not await asyncio.to_thread(self._files.is_held):
            async with self._opening:
                if not await asyncio.to_thread(self._files.is_held):
                    await self._open_again()
        return self.usable

    async def _open_again(self) -> None:
        if self.usable:
            _log.warning("%s was removed, and the conversations with it", self._files.folder)
        self.usable = False
        self._index = Index()
        await asyncio.to_thread(self._files.close)
        await self._open()

    # --- looking -------------------------------------------------------------------------------

    def longest(self, fingerprint: str, chain: Chain) -> FoundPrefix | None:
        """Return what is saved of ``chain``, the longest beginning of it."""
        if not self.usable or fingerprint in self._off:
            return None
        return self._index.longest(fingerprint, chain)

    def is_continued(self, fingerprint: str, chain: Chain) -> bool:
        """Return whether anything is saved that goes on with all of ``chain``."""
        return self._index.is_continued(fingerprint, chain)

    def openings(self, fingerprint: str | None = None) -> list[Saved]:
        """Return what is saved of openings with tools: see :meth:`Index.openings`."""
        return self._index.openings(fingerprint)

    def has(self, link: bytes) -> bool:
        """Return whether anything that ends with ``link`` is saved, of whatever process."""
        return self._index.ends_with(link)

    async def is_whole(self, saved: Saved) -> bool:
        """Return whether ``saved`` can be read; one that is damaged is removed."""
        if (keeping := self._keeping.get(saved.name)) is not None:
            await asyncio.wait([keeping])
        if not self._index.has(saved):
            return False
        if await asyncio.to_thread(self._files.is_whole, saved):
            return True
        if await self._is_held() and self._index.has(saved):
            _log.warning("a saved conversation of %s is damaged or gone: removed", saved.model)
            self.drop(saved)
        return False

    def off(self, fingerprint: str) -> str | None:
        """Return why nothing is saved for such a process, if that is so."""
        return self._off.get(fingerprint)

    # --- changing ------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def saving(self, saved: Saved, tokens: int) -> AsyncGenerator[bool]:
        """Return whether ``saved``, of about so many tokens, may be written; what is worth least
        goes for it.

        What is forgotten before it is :meth:`put` is not kept.
        """
        self._saving[saved] = self.writes.size(saved.fingerprint, tokens)
        try:
            yield self.usable and await self._make_room()
        finally:
            del self._saving[saved]
            self._forgotten.discard(saved)

    async def _make_room(self) -> bool:
        if not await self._is_held():
            return False
        budget = await self._budget()
        if budget <= 0 or sum(self._saving.values()) > budget:
            self.warn_once(_TOO_SMALL)
            return False
        await self._fit(budget)
        return True

    def put(self, saved: Saved) -> None:
        """Keep what has just been written, in place of what it continues."""
        if saved in self._forgotten or not self.is_known(saved.owner):
            self.discard(saved)
            return
        self.writes.know(saved)
        self._index.add(saved)
        self.changes += 1
        task = spawn(self._keep(saved, saved.size), name=f"keep {saved.name}")
        self._keeping[saved.name] = task
        self.keep_track(task)

    async def _keep(self, saved: Saved, written: int) -> None:
        try:
            if not await asyncio.to_thread(self._files.keep, saved, written):
                self._index.remove(saved)
            elif self._index.has(saved):
                self._remove(self._index.contained(saved))
                await self._trim()  # nobody knew for certain how large it would be
            else:
                self.discard(saved)  # removed while it was being written
        finally:
            del self._keeping[saved.name]

    def used(self, saved: Saved) -> None:
        """Note that ``saved`` has been read back."""
        saved.used = self.wall()
        self.tally.transferred(saved.model, saved.owner, read=saved.size)
        self._note(saved)

    def _note(self, saved: Saved) -> None:
        def note() -> None:
            try:
                self._files.note(saved)
            except OSError as error:
                self.warn_once(f"cannot note that conversations were used: {error.strerror}")

        self.keep_track(spawn(asyncio.to_thread(note), name=f"note {saved.name}"))

    def drop(self, saved: Saved) -> None:
        """Remove ``saved``."""
        self._remove([saved])

    def discard(self, *several: Saved) -> None:
        """Remove what was written for those, which were not put."""
        what = several[0].name if len(several) == 1 else f"{len(several)} conversations"
        removing = asyncio.to_thread(self._files.remove, *several)
        self._track_removal(spawn(removing, name=f"remove the files of {what}"))

    def _track_removal(self, task: asyncio.Task[None]) -> None:
        self.keep_track(task)
        self._removing.add(task)
        task.add_done_callback(self._removing.discard)

    def forget(self, *, goes: Callable[[Saved], bool]) -> int:
        """Remove everything that ``goes``; return how many conversations that were."""
        going = [saved for saved in self._index if goes(saved)]
        self._remove(going)
        self._forgotten.update(saved for saved in self._saving if goes(saved))
        return len(going)

    def _remove(self, several: Sequence[Saved]) -> None:
        if len(several) > _AT_ONCE:
            steps = in_steps(self._remove, several, _AT_ONCE)
            self._track_removal(spawn(steps, name=f"remove {len(several)} conversations"))
            return
        going = [saved for saved in several if self._index.has(saved)]
        for saved in going:
            self._index.remove(saved)
        if going:
            self.discard(*going)
        if self._index.tidy():
            self.keep_track(spawn(tidy_up(self._index), name="tidy the saved conversations"))

    def switch_off(self, model: str, fingerprint: str, reason: str) -> None:
        """Save and restore nothing any more for processes with this fingerprint."""
        self._off[fingerprint] = self.tally.models[model].switched_off = reason
        _log.warning("model %s: its conversations are not saved any more: %s", model, reason)
        self._remove([saved for saved in self._index if saved.fingerprint == fingerprint])

    def is_worth_writing(
        self, fingerprint: str, chain: Chain, tokens: int, *, in_danger: bool
    ) -> bool:
        """Return whether ``chain``, of so many tokens, is to be written now."""
        new = new_tokens(chain, tokens, self.longest(fingerprint, chain))
        return self.writes.are_worth_it(
            fingerprint,
            tokens,
            new,
            self.seconds(fingerprint, new),
            in_danger=in_danger,
            disk=self._files.disk,
            now=self._steady(),
        )

    def count_hit(
        self, model: str, fingerprint: str, owner: str | None, tokens: int, *, restored: bool
    ) -> None:
        """So many tokens had not to be computed for ``owner``, as they were ``restored`` or live:
        at least ``min_tokens`` are a hit, fewer may be what all prompts of a template begin with.
        """
        if tokens >= max(1, self.min_tokens):
            seconds = self.seconds(fingerprint, tokens)
            self.tally.hit(model, owner, tokens, seconds, restored=restored)

    def of_model(self, model: str) -> Spared | None:
        """Return what is saved of ``model`` and was spared; ``None``: nothing yet."""
        self.tally.gather(self.seconds)
        return spared(self._index.of_models.get(model), self.tally.models.get(model))

    async def report(self) -> CacheReport:
        """Return what is saved of everything, and was spared."""
        self.tally.gather(self.seconds)
        index, budget = self._index, await self._budget() if self.usable else 0
        return CacheReport(
            folder=str(self._files.folder),
            problem=_NO_ROOM if self.usable and budget <= 0 else self._problem,
            conversations=len(index),
            size=index.size,
            budget=budget,
            models=all_spared(index.of_models, self.tally.models),
            keys=all_spared(index.of_owners, self.tally.keys),
            openings=await asyncio.to_thread(shown_openings, tuple(index)),
        )

    def warn_once(self, text: str, about: str | None = None) -> None:
        """Log ``text``, unless that, or something ``about`` the same, was logged already."""
        about = about or text
        if about not in self._warned:
            self._warned.add(about)
            _log.warning("%s", text)
