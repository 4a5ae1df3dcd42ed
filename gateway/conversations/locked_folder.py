"""A folder that one gateway has for itself, and that nobody else can look into.

Whatever else is in it, or looks like something of ours and is no plain file, is neither read nor
followed. Everything here blocks, and may be called from any thread.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

from gateway.backends.slot_files import plain
from gateway.private_files import FILE, FOLDER, make_folder

LOCK: Final = "lock"


class Unusable(Exception):
    """The folder cannot be used; the text says why."""


class LockedFolder:
    """The folder at ``path``; ``is_ours`` tells what we may have put there, by its name."""

    def __init__(self, path: Path, is_ours: Callable[[str], bool]) -> None:
        self.path = path
        self._is_ours = is_ours
        self._lock: IO[bytes] | None = None

    def take(self) -> None:
        """Take it, made if it isn't there.

        Raises :class:`Unusable`: it is in use by another gateway, someone else's, or read-only.
        """
        try:
            make_folder(self.path)
            self._close_to_others()
            self._lock = _open_lock(self.path / LOCK)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self.is_held():  # removed, or made anew, by somebody between these two lines
                raise BlockingIOError
        except BlockingIOError:
            self.close()
            raise Unusable(f"{self.path} is in use by another gateway") from None
        except OSError as error:
            self.close()
            raise Unusable(f"{self.path} cannot be used: {error.strerror}") from None
        except Unusable:
            self.close()
            raise

    def close(self) -> None:
        """Let another gateway have it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def is_held(self) -> bool:
        """Return whether it is still the one that was taken, and not removed since."""
        if self._lock is None:
            return False
        try:
            there = (self.path / LOCK).lstat()
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self._lock.fileno()))

    def _close_to_others(self) -> None:
        status = self.path.stat()
        if status.st_uid != os.geteuid():
            raise Unusable(f"{self.path} belongs to another user")
        if stat.S_IMODE(status.st_mode) == FOLDER:
            return
        for name in sorted(file.name for file in self.path.iterdir()):
            if name != LOCK and not self._is_ours(name):
                raise Unusable(
                    f"{self.path} holds other things, such as {name!r}, and others may look "
                    "into it: give cache.dir a folder of its own"
                )
        self.path.chmod(FOLDER)


def _open_lock(file: Path) -> IO[bytes]:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    return plain(os.open(file, flags, FILE), "r+b")
