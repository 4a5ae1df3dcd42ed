"""The folder with what is saved: a file that llama-server wrote, and beside it what it is.

``NAME.kv`` is llama-server's; ``NAME.json`` is written last, so that a file without it is half
of one and is swept at the start. Everything here blocks, and may be called from any thread.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import stat
from pathlib import Path
from typing import Final, Literal

from gateway.backends.slot_files import HOSTED, NAME, NEW, NODES, SPARE, STATE, SlotFiles, budget
from gateway.conversations.fact_files import FactFiles, read_facts
from gateway.conversations.index import Saved
from gateway.conversations.locked_folder import LockedFolder, Unusable

_log = logging.getLogger(__name__)

_WHOLE: Final = re.compile(rf"({NAME})(\.kv|\.json)")
#: What was being written when its gateway died: by llama-server, and by ``write_private``.
_HALF: Final = re.compile(rf"{NEW}{NAME}|\.{NAME}\.json\.[0-9a-f]+")


class CacheFiles:
    """That of one gateway. ``max_size`` in bytes, or ``"auto"``; ``spare`` are left to others."""

    def __init__(
        self, folder: Path, max_size: int | Literal["auto"], *, spare: int = SPARE
    ) -> None:
        self.folder = folder
        self._max_size = max_size
        self._spare = spare
        self._locked = LockedFolder(folder, is_ours)
        self._states = SlotFiles(folder, self._warn_once)
        self._facts = FactFiles(folder)
        self._told: set[str] = set()
        #: Bytes that its disk has in all, once that was asked for.
        self.disk = 0

    # --- the folder ----------------------------------------------------------------------------

    def open(self) -> list[Saved]:
        """Take the folder, remove half files, and return what is saved.

        Raises :class:`Unusable`: it is in use by another gateway, someone else's, or read-only.
        """
        self._locked.take()
        try:
            return self._sweep()
        except OSError as error:
            self.close()
            raise Unusable(f"{self.folder} cannot be used: {error.strerror}") from None

    def close(self) -> None:
        """Let another gateway have the folder."""
        self._locked.close()

    def is_held(self) -> bool:
        """Return whether the folder is still the one that was opened, and not removed since."""
        return self._locked.is_held()

    def _sweep(self) -> list[Saved]:
        found: list[Saved] = []
        states: dict[str, os.DirEntry[str]] = {}
        facts: dict[str, os.DirEntry[str]] = {}
        remove: list[str] = []
        for entry in self._states.entries():
            if (whole := _WHOLE.fullmatch(entry.name)) is not None:
                (states if whole[2] == STATE else facts)[whole[1]] = entry
            elif _HALF.fullmatch(entry.name):
                remove.append(entry.name)
        for name, entry in facts.items():
            saved = read_facts(Path(entry))
            state = states.get(name)
            if saved is not None and state is not None:
                status = state.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and status.st_size == saved.size:
                    found.append(saved)
                    del states[name]
                    continue
            remove.append(entry.name)
        remove += [entry.name for entry in states.values()]
        self._states.unlink(remove)
        self._states.forget()
        self._facts.found(found)
        return found

    def sweep_late(self, older: float) -> None:
        """Remove what llama-server began to write ``older`` seconds ago, and nobody waits for."""
        self._states.sweep_late(_HALF, older)

    def budget(self, held: int) -> int:
        """Return how many bytes the cache may have, of which ``held`` are there already."""
        try:
            usage = shutil.disk_usage(self.folder)
        except OSError:
            return 0
        self.disk = usage.total
        return budget(held, usage.free, self._max_size, spare=self._spare)

    # --- its files -----------------------------------------------------------------------------

    def new_name(self, saved: Saved) -> str:
        """Return what llama-server is to call the file that it writes."""
        return new_name(saved)

    def file_name(self, saved: Saved) -> str:
        """Return what llama-server is to read."""
        return file_name(saved)

    def keep(self, saved: Saved, written: int) -> bool:
        """Keep what llama-server wrote, ``written`` bytes; return False if it isn't all there."""
        try:
            check = self._states.keep(saved.name, written)
            if check is None:
                return False
            saved.check, saved.size = check, written
            self._facts.keep(saved)
        except OSError as error:
            self._warn_once("a conversation cannot be kept", error)
            self.remove(saved)
            return False
        return True

    def note(self, saved: Saved) -> None:
        """Write down what is known of ``saved``, unless it was removed. Raises ``OSError``."""
        self._facts.note(saved)

    def is_whole(self, saved: Saved) -> bool:
        """Return whether its file is as it was written."""
        return self._states.is_whole(saved.name, saved.size, saved.check)

    def remove(self, *several: Saved) -> None:
        """Remove the files of ``several``, as far as they are there."""
        for saved in several:
            try:
                self._facts.remove(saved.name)
            except OSError as error:
                self._warn_once("a saved conversation cannot be removed", error)
            self._states.remove(saved.name)

    def _warn_once(self, what: str, error: OSError) -> None:
        if what not in self._told:
            self._told.add(what)
            _log.warning("%s: %s", what, error)


def new_name(saved: Saved) -> str:
    """Return what llama-server is to call the file that it writes."""
    return f"{NEW}{saved.name}"


def file_name(saved: Saved) -> str:
    """Return what llama-server is to read."""
    return f"{saved.name}{STATE}"


def is_ours(name: str) -> bool:
    """Return whether we may have put something of that name into a folder of the cache."""
    return bool(_WHOLE.fullmatch(name) or _HALF.fullmatch(name)) or name in (NODES, HOSTED)
