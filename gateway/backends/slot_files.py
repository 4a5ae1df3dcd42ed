"""The files of a folder that llama-servers write their slots to.

``NAME.kv`` is such a file; until it is checked it is called ``new-NAME``. llama-server (b10434)
aborts over a file that lacks its last bytes, and takes one whose bytes were flipped as it is: so
each has a checksum, which is compared unless the file is still as this process saw it last. So
nothing waits for the disk to have it.

Whatever looks like something of ours and is no plain file is neither read nor followed. Everything
here blocks, and may be called from any thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

from gateway.private_files import FILE

STATE: Final = ".kv"
#: What llama-server is given to write: not yet checked, and perhaps only half of one.
NEW: Final = "new-"
#: Bytes of a name, in hex.
NAME_BYTES: Final = 12
NAME: Final = f"[0-9a-f]{{{2 * NAME_BYTES}}}"
_OURS: Final = re.compile(rf"(?:{NEW})?({NAME})(?:{re.escape(STATE)})?")
#: The folders of a cache: with one for each node of which something is saved there, and, where
#: this machine is a node, with what gateways have saved here.
NODES: Final = "nodes"
HOSTED: Final = "hosted"
_BLOCK: Final = 2**20
#: What is left free for others, whatever is asked for.
SPARE: Final = 2**29
#: ``max_size: auto``: this part of what would be free without the cache.
_SHARE: Final = 0.2


@dataclass(frozen=True, slots=True)
class _Seen:
    size: int
    modified: int
    changed: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> _Seen:
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


class SlotFiles:
    """Those in ``folder``. ``warn`` is told, with the reason, what can't be removed."""

    def __init__(self, folder: Path, warn: Callable[[str, OSError], None]) -> None:
        self.folder = folder
        self._warn = warn
        self._checked: dict[str, _Seen] = {}
        self._guard = threading.Lock()

    def keep(self, name: str, written: int) -> int | None:
        """Keep what llama-server wrote, ``written`` bytes, and return its checksum.

        Return None, and remove it, if it isn't all there. Raises ``OSError``.
        """
        new, state = self.folder / f"{NEW}{name}", self.folder / f"{name}{STATE}"
        check, seen = _checksum(new, FILE)
        if seen.size != written:  # its size stays what it is counted with
            self.remove(name)
            return None
        with self._guard:
            new.replace(state)
            self._checked[name] = _Seen.of(state.lstat())
        return check

    def is_whole(self, name: str, size: int, check: int) -> bool:
        """Return whether its file is as it was written."""
        file = self.folder / f"{name}{STATE}"
        try:
            if self._checked.get(name) == _Seen.of(file.lstat()):
                return True
            found, seen = _checksum(file)
        except OSError:
            return False
        if (found, seen.size) != (check, size):
            return False
        with self._guard:
            self._checked[name] = seen
        return True

    def remove(self, name: str) -> None:
        """Remove its file, whole or half, if it is there."""
        with self._guard:
            self._checked.pop(name, None)
            self.unlink((f"{name}{STATE}", f"{NEW}{name}"))

    def unlink(self, names: Iterable[str]) -> None:
        """Remove files by what they are called there, as far as they are there."""
        for name in names:
            try:
                (self.folder / name).unlink(missing_ok=True)
            except OSError as error:
                self._warn("a saved conversation cannot be removed", error)

    def forget(self) -> None:
        """Believe nothing of what was seen: the folder may be another one."""
        with self._guard:
            self._checked.clear()

    def entries(self) -> list[os.DirEntry[str]]:
        """Return what is in the folder. Raises ``OSError``."""
        with os.scandir(self.folder) as entries:
            return [*entries]

    def sizes(self) -> dict[str, int]:
        """Return the bytes of each whole file, by name. Raises ``OSError``."""
        found = {}
        for entry in self.entries():
            match = _OURS.fullmatch(entry.name)
            if match is not None and entry.name == f"{match[1]}{STATE}":
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    found[match[1]] = status.st_size
        return found

    def sweep_late(self, half: re.Pattern[str], older: float) -> None:
        """Remove what is called like ``half`` a file, and was written ``older`` seconds ago."""
        late = time.time() - older
        try:
            entries = self.entries()
        except OSError:  # it has been removed
            return
        for entry in entries:
            if half.fullmatch(entry.name):
                with contextlib.suppress(OSError):  # it was kept meanwhile
                    if entry.stat(follow_symlinks=False).st_mtime < late:
                        self.unlink([entry.name])


def budget(held: int, free: int, max_size: int | Literal["auto"], *, spare: int = SPARE) -> int:
    """Return how many bytes a folder may have, of which ``held`` are there already, on a disk with
    so many ``free``; ``spare`` are left to others.
    """
    most = max(0, held + free - spare)
    wanted = int((held + free) * _SHARE) if max_size == "auto" else max_size
    return min(most, wanted)


def open_plain(file: Path) -> IO[bytes]:
    """Open ``file`` for reading, which is neither a link nor a pipe. Raises ``OSError``."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    return plain(os.open(file, flags), "rb")


def plain(number: int, mode: Literal["rb", "r+b"]) -> IO[bytes]:
    """Return the plain file that is open as ``number``. Raises ``OSError`` for anything else."""
    if stat.S_ISREG(os.fstat(number).st_mode):
        return os.fdopen(number, mode, buffering=0)
    os.close(number)
    raise OSError(errno.EINVAL, "not a plain file")


def _checksum(file: Path, mode: int | None = None) -> tuple[int, _Seen]:
    """Return that of its content, and what it was before that was read; it gets ``mode``."""
    check = 0
    with open_plain(file) as stream:
        if mode is not None:
            os.fchmod(stream.fileno(), mode)
        before = _Seen.of(os.fstat(stream.fileno()))
        while block := stream.read(_BLOCK):
            check = zlib.crc32(block, check)
    return check, before
