"""All that is saved in one folder: what the slots of every model put and find there.

The event loop only ever waits for the disk, or for the node that has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final

from gateway.conversations.chain import Chain
from gateway.conversations.counts import Tally
from gateway.conversations.files import file_name, new_name
from gateway.conversations.in_vain import InVain
from gateway.conversations.index import (
    FoundPrefix,
    Index,
    Saved,
    in_steps,
    least_valuable,
    mend_times,
    sorted_out,
    tidy_up,
    too_old,
)
from gateway.conversations.locked_folder import Unusable
from gateway.conversations.pending import Pending
from gateway.conversations.speeds import Speeds
from gateway.conversations.store import Store
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


#: Numbers of what is saved where, which no two shelves have in common.
_changes: Final = itertools.count(1)


class Shelf:
    """That of one gateway in one ``store``. ``max_age`` and ``upkeep_every`` in seconds."""

    def __init__(
        self,
        store: Store,
        *,
        max_age: float,
        min_tokens: int,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        upkeep_every: float = _UPKEEP_EVERY,
        beside: Shelf | None = None,
    ) -> None:
        """``beside``: another one, with which it counts what is spared."""
        self.store = store
        self._index = Index()
        #: Is another number once there is more, and on each shelf.
        self.changes = next(_changes)
        self._max_age = max_age
        self.min_tokens = min_tokens
        self.wall = wall
        self._steady = steady
        self._upkeep_every = upkeep_every
        self.usable = False
        self._problem: str | None = "the folder was not looked at yet"
        self._off: dict[str, str] = {}
        self._warned: set[str] = set()
        self.speeds: Speeds = Speeds() if beside is None else beside.speeds
        self.seconds = self.speeds.seconds
        self.in_vain = InVain()
        self.writes = Writes(steady())
        #: What is being written, and its expected size.
        self._saving: dict[Saved, int] = {}
        self._forgotten: set[Saved] = set()
        self._keeping: dict[str, asyncio.Task[None]] = {}
        pending = Pending()
        self.keep_track, self.written = pending.keep_track, pending.over
        self._removing: set[asyncio.Task[Any]] = set()
        self._upkeep: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self._closed = False
        #: Whether a key still exists: nothing is kept of others.
        self.is_known: Callable[[str], bool] = lambda owner: True
        self.tally: Tally = Tally() if beside is None else beside.tally
        self.new_name, self.file_name = new_name, file_name

    async def open(self) -> None:
        """Take the folder, and find what is there. Without one everything else goes on."""
        async with self._opening:
            await self._open()
            if not self._closed:
                name = "look after saved conversations"
                self._upkeep = spawn_lasting(self._keep_up, name=name)

    async def _open(self) -> None:
        if self._closed:
            return
        try:
            there = await self.store.open()
        except Unusable as problem:
            self._problem = str(problem)
            self.warn_once(f"conversations are not saved: {problem}")
            return
        found = await asyncio.to_thread(sorted_out, there, self.wall())
        self._index, self._problem = found.everything, None
        self.changes = next(_changes)
        self.writes.note(found.written)
        for saved in found.last:
            self.writes.know(saved)
            if saved.seconds > 0:
                self.speeds.know(saved.fingerprint, saved.tokens / saved.seconds)
        self.usable = True
        await self._compare()
        await self._trim()
        mib = self._index.size / 2**20
        many = counted(len(self._index), "conversation")
        _log.info("%s saved, %.0f MiB: %s", many, mib, self.store.where)

    async def close(self) -> None:
        """Wait until everything is written, and let go of the folder."""
        async with self._opening:
            self.usable, self._closed = False, True
            await cancel_and_wait(self._upkeep)
        await self.written()
        await self.store.close()

    async def removed(self) -> None:
        """Return when what was forgotten is gone, but for what is still being written."""
        for _ in range(2):  # what was being kept is removed after that
            if waiting := {*self._removing, *self._keeping.values()}:
                await asyncio.wait(waiting)

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
            await self.store.sweep_late(_LATE)
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
        return await self.store.budget(self._index.size)

    async def _fit(self, budget: int) -> None:
        excess = self._index.size + sum(self._saving.values()) - budget
        if excess > 0:
            everything, now = tuple(self._index), self.wall()
            self._remove(await asyncio.to_thread(least_valuable, everything, now, excess))

    async def _is_held(self) -> bool:
        """Return whether the folder is there, made anew if it was removed."""
        if not await self.store.is_held():
            async with self._opening:
                if not await self.store.is_held():
                    await self._open_again()
        return self.usable

    async def _open_again(self) -> None:
        if self.usable:
            _log.warning("%s was removed, and the conversations with it", self.store.where)
        self.usable = False
        self._index = Index()
        await self.store.close()
        await self._open()

    async def reconcile(self) -> None:
        """Have here and there the same again, after its node was away."""
        async with self._opening:
            if self.usable:
                await self._compare()

    async def _compare(self) -> None:
        gone = frozenset(await self.store.gone())
        lost = [saved for saved in self._index if saved.name in gone]
        if lost:
            many = counted(len(lost), "saved conversation")
            _log.warning("%s: %s are not there any more", self.store.where, many)
            self._remove(lost)

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
        whole = await self.store.is_whole(saved)
        if whole is False and await self._is_held() and self._index.has(saved):
            _log.warning("a saved conversation of %s is damaged or gone: removed", saved.model)
            self.drop(saved)
        return whole is True

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
        if not await self._is_held() or self.store.problem is not None:
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
        self.changes = next(_changes)
        task = spawn(self._keep(saved, saved.size), name=f"keep {saved.name}")
        self._keeping[saved.name] = task
        self.keep_track(task)

    async def _keep(self, saved: Saved, written: int) -> None:
        try:
            if not await self.store.keep(saved, written):
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
        self.keep_track(spawn(self._write_down(saved), name=f"note {saved.name}"))

    async def _write_down(self, saved: Saved) -> None:
        try:
            await self.store.note(saved)
        except OSError as error:
            self.warn_once(f"cannot note that conversations were used: {error.strerror}")

    def drop(self, saved: Saved) -> None:
        """Remove ``saved``."""
        self._remove([saved])

    def discard(self, *several: Saved) -> None:
        """Remove what was written for those, which were not put."""
        what = several[0].name if len(several) == 1 else f"{len(several)} conversations"
        removing = self.store.remove(*several)
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
            disk=self.store.disk,
            now=self._steady(),
        )

    @property
    def index(self) -> Index:
        """What is saved."""
        return self._index

    async def room(self) -> tuple[int, str | None]:
        """Return the bytes that all of it may have, and why nothing is saved, if that is so."""
        budget = await self._budget() if self.usable else 0
        return budget, _NO_ROOM if self.usable and budget <= 0 else self._problem

    def warn_once(self, text: str, about: str | None = None) -> None:
        """Log ``text``, unless that, or something ``about`` the same, was logged already."""
        about = about or text
        if about not in self._warned:
            self._warned.add(about)
            _log.warning("%s", text)
