"""Where llama-servers of a node write what is in their slots: a folder for each gateway.

What each file is only the gateway knows, which alone decides what is saved: here they are checked,
and removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gateway.backends.nodes import Room
from gateway.backends.served import Served
from gateway.backends.slot_files import NAME, NEW, SlotFiles
from gateway.private_files import make_folder
from gateway.tasks import spawn
from gateway.upstream import Upstream

_log = logging.getLogger(__name__)

_NAME: Final = re.compile(NAME)
_HALF: Final = re.compile(f"{NEW}{NAME}")
#: Seconds after which no gateway waits for what llama-server writes.
_LATE: Final = 600.0
#: Seconds after which what a gateway has saved goes, if it has not been heard of since; and
#: between two looks for that.
_ABANDONED: Final = 30 * 86_400.0
_SWEEP: Final = 3_600.0
#: Seconds for a drive to answer.
_ANSWER: Final = 5.0
#: The file whose time is when the gateway was heard of last.
_HEARD: Final = "heard"
#: What a gateway may have done.
_ASKED: Final = frozenset(("meet", "keep", "is_whole", "remove"))


class SlotFolder:
    """That of one gateway: see :class:`gateway.backends.backend.SlotSaves`. All of it blocks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._told: set[str] = set()
        self._files = SlotFiles(path, self._warn_once)

    @property
    def folder(self) -> Path | None:
        """The folder, which nobody else can look into; None if it can't be written to."""
        try:
            make_folder(self.path)
        except OSError:
            return None
        return self.path

    def arrived(self, backend: Served) -> None:
        """Leave that to the gateway."""

    async def leave(self, backend: Served, pool: Upstream) -> None:
        """Leave that to the gateway."""

    def ask(self, what: str, *arguments: Any) -> Any:
        """Do what a gateway asks, by the name of a method: one of those below."""
        if what not in _ASKED:
            raise ValueError(f"nothing here is called {what!r}")
        return getattr(self, what)(*arguments)

    def meet(self, known: Mapping[str, int]) -> list[str]:
        """Remove all but ``known``, bytes by name; return which of these aren't there."""
        if self.folder is None or not self.path.is_dir():
            return list(known)
        with contextlib.suppress(OSError):
            (self.path / _HEARD).touch(mode=0o600)
        there = self._files.sizes()
        self.remove([name for name, size in there.items() if known.get(name) != size])
        self._files.sweep_late(_HALF, _LATE)
        return [name for name, size in known.items() if there.get(name) != size]

    def keep(self, name: str, written: int) -> int | None:
        """See :meth:`gateway.backends.slot_files.SlotFiles.keep`."""
        return self._files.keep(_checked(name), written)

    def is_whole(self, name: str, size: int, check: int) -> bool:
        """Return whether a file is as it was written."""
        return self._files.is_whole(_checked(name), size, check)

    def remove(self, names: Sequence[str]) -> None:
        """Remove files, as far as they are there."""
        for name in names:
            self._files.remove(_checked(name))

    def _warn_once(self, what: str, error: OSError) -> None:
        if what not in self._told:
            self._told.add(what)
            _log.warning("%s: %s", what, error)


class SlotFolders:
    """Those below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, SlotFolder] = {}
        self._swept = -_SWEEP
        self._looking: asyncio.Task[None] | None = None
        #: How much there was at the last look, if that could be told.
        self.room: Room | None = None

    def of(self, gateway: str) -> SlotFolder:
        """Return that of a gateway, whose name may be anything."""
        name = hashlib.sha256(gateway.encode()).hexdigest()[:32]
        if name not in self._known:
            self._known[name] = SlotFolder(self._folder / name)
        return self._known[name]

    async def look(self) -> None:
        """See how much room there is, and clear away what is nobody's. A drive that hangs is asked
        once.
        """
        if self._looking is None or self._looking.done():
            looking = asyncio.to_thread(self._look)
            self._looking = spawn(looking, name="look at the disk for conversations")
        await asyncio.wait([self._looking], timeout=_ANSWER)
        if not self._looking.done():
            self.room = None

    def _look(self) -> None:
        try:
            make_folder(self._folder)
            if time.monotonic() - self._swept > _SWEEP:
                self._swept = time.monotonic()
                self._sweep(time.time() - _ABANDONED)
            usage = shutil.disk_usage(self._folder)
        except OSError:
            self.room = None
        else:
            self.room = Room(usage.total, usage.free)

    def _sweep(self, before: float) -> None:
        for one in self._folder.iterdir():
            if one.name not in self._known and _heard_of(one) < before:
                _log.info("removing what a gateway has saved that has not come for a month")
                shutil.rmtree(one, ignore_errors=True)


def _heard_of(folder: Path) -> float:
    try:
        return (folder / _HEARD).lstat().st_mtime
    except OSError:
        return folder.lstat().st_mtime


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name[:100]!r} is no name of a file that is saved")
    return name
