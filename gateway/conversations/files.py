"""The folder with what is saved: a file that llama-server wrote, and beside it what it is.

``NAME.kv`` is llama-server's; ``NAME.json`` is written last, so that a file without it is half
of one and is swept at the start. llama-server (b10434) aborts over a file that lacks its last
bytes, and takes one whose bytes were flipped as it is: so each has a checksum, which is compared
unless the file is still as this process saw it last. So nothing waits for the disk to have it.

Whatever else is in the folder, or looks like something of ours and is no plain file, is neither
read nor followed. Everything here blocks, and may be called from any thread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import shutil
import stat
import threading
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

from gateway.conversations.facts import read, written
from gateway.conversations.index import Saved
from gateway.private_files import FILE, FOLDER, make_folder, write_private

_log = logging.getLogger(__name__)

_LOCK, _STATE, _FACTS = "lock", ".kv", ".json"
#: What llama-server is given to write: not yet checked, and perhaps only half of one.
_NEW: Final = "new-"
#: Bytes of a name, in hex.
NAME_BYTES: Final = 12
_NAME: Final = f"[0-9a-f]{{{2 * NAME_BYTES}}}"
_WHOLE: Final = re.compile(rf"({_NAME})(\.kv|\.json)")
#: What was being written when its gateway died: by llama-server, and by ``write_private``.
_HALF: Final = re.compile(rf"{_NEW}{_NAME}|\.{_NAME}\.json\.[0-9a-f]+")
_BLOCK: Final = 2**20
#: Bytes of what is written down of a conversation, at most: of 100,000 messages.
_MOST_FACTS: Final = 2**23
#: ``max_size: auto``: this part of what would be free without the cache.
_SHARE: Final = 0.2
#: What is left free for others, whatever is asked for.
_SPARE: Final = 2**29


class Unusable(Exception):
    """The folder cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class _Seen:
    size: int
    modified: int
    changed: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> _Seen:
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


class CacheFiles:
    """That of one gateway. ``max_size`` in bytes, or ``"auto"``; ``spare`` are left to others."""

    def __init__(
        self, folder: Path, max_size: int | Literal["auto"], *, spare: int = _SPARE
    ) -> None:
        self.folder = folder
        self._max_size = max_size
        self._spare = spare
        self._lock: IO[bytes] | None = None
        self._checked: dict[str, _Seen] = {}
        #: What is kept; what has been removed is written by nobody who is late. Guarded.
        self._kept: set[str] = set()
        self._guard = threading.Lock()
        self._told: set[str] = set()
        #: Bytes that its disk has in all, once that was asked for.
        self.disk = 0

    # --- the folder ----------------------------------------------------------------------------

    def open(self) -> list[Saved]:
        """Take the folder, remove half files, and return what is saved.

        Raises :class:`Unusable`: it is in use by another gateway, someone else's, or read-only.
        """
        try:
            make_folder(self.folder)
            self._close_to_others()
            self._lock = _open_lock(self.folder / _LOCK)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self.is_held():  # removed, or made anew, by somebody between these two lines
                raise BlockingIOError
            return self._sweep()
        except BlockingIOError:
            self.close()
            raise Unusable(f"{self.folder} is in use by another gateway") from None
        except OSError as error:
            self.close()
            raise Unusable(f"{self.folder} cannot be used: {error.strerror}") from None
        except Unusable:
            self.close()
            raise

    def close(self) -> None:
        """Let another gateway have the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def is_held(self) -> bool:
        """Return whether the folder is still the one that was opened, and not removed since."""
        if self._lock is None:
            return False
        try:
            there = (self.folder / _LOCK).lstat()
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self._lock.fileno()))

    def _close_to_others(self) -> None:
        status = self.folder.stat()
        if status.st_uid != os.geteuid():
            raise Unusable(f"{self.folder} belongs to another user")
        if stat.S_IMODE(status.st_mode) == FOLDER:
            return
        for name in sorted(file.name for file in self.folder.iterdir()):
            if name != _LOCK and not _WHOLE.fullmatch(name) and not _HALF.fullmatch(name):
                raise Unusable(
                    f"{self.folder} holds other things, such as {name!r}, and others may look "
                    "into it: give cache.dir a folder of its own"
                )
        self.folder.chmod(FOLDER)

    def _sweep(self) -> list[Saved]:
        found: list[Saved] = []
        states: dict[str, os.DirEntry[str]] = {}
        facts: dict[str, os.DirEntry[str]] = {}
        remove: list[str] = []
        for entry in self._entries():
            if (whole := _WHOLE.fullmatch(entry.name)) is not None:
                (states if whole[2] == _STATE else facts)[whole[1]] = entry
            elif _HALF.fullmatch(entry.name):
                remove.append(entry.name)
        for name, entry in facts.items():
            saved = _read(Path(entry))
            state = states.get(name)
            if saved is not None and saved.name == name and state is not None:
                status = state.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and status.st_size == saved.size:
                    found.append(saved)
                    del states[name]
                    continue
            remove.append(entry.name)
        remove += [entry.name for entry in states.values()]
        self._unlink(remove)
        with self._guard:
            self._checked.clear()
            self._kept = {saved.name for saved in found}
        return found

    def sweep_late(self, older: float) -> None:
        """Remove what llama-server began to write ``older`` seconds ago, and nobody waits for."""
        late = time.time() - older
        try:
            entries = self._entries()
        except OSError:  # it has been removed
            return
        for entry in entries:
            if _HALF.fullmatch(entry.name):
                with contextlib.suppress(OSError):  # it was kept meanwhile
                    if entry.stat(follow_symlinks=False).st_mtime < late:
                        self._unlink([entry.name])

    def _entries(self) -> list[os.DirEntry[str]]:
        with os.scandir(self.folder) as entries:
            return [*entries]

    def budget(self, held: int) -> int:
        """Return how many bytes the cache may have, of which ``held`` are there already."""
        try:
            usage = shutil.disk_usage(self.folder)
        except OSError:
            return 0
        self.disk, free = usage.total, usage.free
        most = max(0, held + free - self._spare)
        wanted = int((held + free) * _SHARE) if self._max_size == "auto" else self._max_size
        return min(most, wanted)

    # --- its files -----------------------------------------------------------------------------

    def new_name(self, saved: Saved) -> str:
        """Return what llama-server is to call the file that it writes."""
        return f"{_NEW}{saved.name}"

    def file_name(self, saved: Saved) -> str:
        """Return what llama-server is to read."""
        return f"{saved.name}{_STATE}"

    def keep(self, saved: Saved, written: int) -> bool:
        """Keep what llama-server wrote, ``written`` bytes; return False if it isn't all there."""
        new, state = self.folder / self.new_name(saved), self.folder / self.file_name(saved)
        try:
            saved.check, seen = _checksum(new, FILE)
            if seen.size != written:  # its size stays what it is counted with
                self.remove(saved)
                return False
            saved.size = seen.size
            with self._guard:
                new.replace(state)
                self._kept.add(saved.name)
                self._note(saved)
                self._checked[saved.name] = _Seen.of(state.lstat())
        except OSError as error:
            self._warn_once("a conversation cannot be kept", error)
            self.remove(saved)
            return False
        return True

    def note(self, saved: Saved) -> None:
        """Write down what is known of ``saved``, unless it was removed. Raises ``OSError``."""
        with self._guard:
            self._note(saved)

    def _note(self, saved: Saved) -> None:
        if saved.name in self._kept:
            write_private(self.folder / f"{saved.name}{_FACTS}", written(saved))

    def is_whole(self, saved: Saved) -> bool:
        """Return whether its file is as it was written."""
        file = self.folder / self.file_name(saved)
        try:
            if self._checked.get(saved.name) == _Seen.of(file.lstat()):
                return True
            check, seen = _checksum(file)
        except OSError:
            return False
        if (check, seen.size) != (saved.check, saved.size):
            return False
        with self._guard:
            if saved.name in self._kept:
                self._checked[saved.name] = seen
        return True

    def remove(self, *several: Saved) -> None:
        """Remove the files of ``several``, as far as they are there."""
        for saved in several:
            names = f"{saved.name}{_FACTS}", self.file_name(saved), self.new_name(saved)
            with self._guard:
                self._kept.discard(saved.name)
                self._checked.pop(saved.name, None)
                self._unlink(names)

    def _unlink(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                (self.folder / name).unlink(missing_ok=True)
            except OSError as error:
                self._warn_once("a saved conversation cannot be removed", error)

    def _warn_once(self, what: str, error: OSError) -> None:
        if what not in self._told:
            self._told.add(what)
            _log.warning("%s: %s", what, error)


def _open_lock(file: Path) -> IO[bytes]:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    return _plain(os.open(file, flags, FILE), "r+b")


def _open(file: Path) -> IO[bytes]:
    """Open ``file`` for reading, which is neither a link nor a pipe. Raises ``OSError``."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    return _plain(os.open(file, flags), "rb")


def _plain(number: int, mode: Literal["rb", "r+b"]) -> IO[bytes]:
    if stat.S_ISREG(os.fstat(number).st_mode):
        return os.fdopen(number, mode, buffering=0)
    os.close(number)
    raise OSError(errno.EINVAL, "not a plain file")


def _checksum(file: Path, mode: int | None = None) -> tuple[int, _Seen]:
    """Return that of its content, and what it was before that was read; it gets ``mode``."""
    check = 0
    with _open(file) as stream:
        if mode is not None:
            os.fchmod(stream.fileno(), mode)
        before = _Seen.of(os.fstat(stream.fileno()))
        while block := stream.read(_BLOCK):
            check = zlib.crc32(block, check)
    return check, before


def _read(facts: Path) -> Saved | None:
    try:
        with _open(facts) as stream:
            if os.fstat(stream.fileno()).st_size > _MOST_FACTS:
                return None
            return read(stream.read(_MOST_FACTS))
    except OSError:
        return None
