"""What is written down of saved conversations: ``NAME.json`` for each, in one folder.

Everything here blocks, and may be called from any thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from gateway.backends.slot_files import open_plain
from gateway.conversations.facts import read, written
from gateway.conversations.index import Saved
from gateway.private_files import write_private

FACTS: Final = ".json"
#: Bytes of what is written down of a conversation, at most: of 100,000 messages.
_MOST: Final = 2**23


class FactFiles:
    """Those in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        #: What is kept; what has been removed is written by nobody who is late. Guarded.
        self._kept: set[str] = set()
        self._guard = threading.Lock()

    def found(self, those: Iterable[Saved]) -> None:
        """Take ``those`` for all that is kept."""
        with self._guard:
            self._kept = {saved.name for saved in those}

    def keep(self, saved: Saved) -> None:
        """Write ``saved`` down from now on. Raises ``OSError``."""
        with self._guard:
            self._kept.add(saved.name)
            self._write(saved)

    def note(self, saved: Saved) -> None:
        """Write down what is known of ``saved``, unless it was removed. Raises ``OSError``."""
        with self._guard:
            self._write(saved)

    def _write(self, saved: Saved) -> None:
        if saved.name in self._kept:
            write_private(self._folder / f"{saved.name}{FACTS}", written(saved))

    def remove(self, name: str) -> None:
        """Have nothing written down of what has this name. Raises ``OSError``."""
        with self._guard:
            self._kept.discard(name)
            (self._folder / f"{name}{FACTS}").unlink(missing_ok=True)


def read_facts(file: Path) -> Saved | None:
    """Return what is written in ``file``; ``None`` if that isn't what we have written there."""
    try:
        with open_plain(file) as stream:
            if os.fstat(stream.fileno()).st_size > _MOST:
                return None
            saved = read(stream.read(_MOST))
    except OSError:
        return None
    return saved if saved is not None and f"{saved.name}{FACTS}" == file.name else None
