"""The folder with what is saved: a file that llama-server wrote, and beside it what it is.

``NAME.kv`` is llama-server's; ``NAME.json`` is written last, so that a file without it is half
of one and is swept at the start. llama-server (b10434) aborts over a file that lacks its last
bytes, and takes one whose bytes were flipped as it is: so each has a checksum, which is compared
unless the file is still as this process saw it last. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal

import orjson

from gateway.conversations.chain import Chain
from gateway.conversations.index import Saved
from gateway.private_files import FILE, FOLDER, make_folder, open_private, write_private

_log = logging.getLogger(__name__)

_STATE, _FACTS = ".kv", ".json"
#: What llama-server is given to write: not yet checked, and perhaps only half of one.
_NEW: Final = "new-"
_BLOCK: Final = 2**20
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
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> _Seen:
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


class CacheFiles:
    """That of one gateway. ``max_size`` in bytes, or ``"auto"``."""

    def __init__(self, folder: Path, max_size: int | Literal["auto"]) -> None:
        self.folder = folder
        self._max_size = max_size
        self._lock: IO[str] | None = None
        self._checked: dict[str, _Seen] = {}

    def open(self) -> list[Saved]:
        """Take the folder, remove half files, and return what is saved.

        Raises :class:`Unusable`: it is in use by another gateway, someone else's, or read-only.
        """
        try:
            make_folder(self.folder)
            status = self.folder.stat()
            if status.st_uid != os.geteuid():
                raise Unusable(f"{self.folder} belongs to another user")
            if stat.S_IMODE(status.st_mode) != FOLDER:
                self.folder.chmod(FOLDER)
            self._lock = open_private(self.folder / "lock")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return self._sweep()
        except BlockingIOError:
            self.close()
            raise Unusable(f"{self.folder} is in use by another gateway") from None
        except OSError as error:
            self.close()
            raise Unusable(f"{self.folder} cannot be used: {error.strerror}") from None

    def close(self) -> None:
        """Let another gateway have the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _sweep(self) -> list[Saved]:
        found: list[Saved] = []
        states = {file.stem: file for file in self.folder.glob(f"*{_STATE}")}
        for facts in self.folder.glob(f"*{_FACTS}"):
            saved = _read(facts)
            if saved is not None and (file := states.pop(saved.name, None)) is not None:
                if file.stat().st_size == saved.size:
                    found.append(saved)
                    continue
                file.unlink()
            facts.unlink()
        halves = [*states.values(), *self.folder.glob(f"{_NEW}*"), *self.folder.glob(".*.json.*")]
        for half in halves:
            half.unlink(missing_ok=True)
        return found

    def budget(self, held: int) -> int:
        """Return how many bytes the cache may have, of which ``held`` are there already."""
        try:
            free = shutil.disk_usage(self.folder).free
        except OSError:
            return 0
        most = max(0, held + free - _SPARE)
        wanted = int((held + free) * _SHARE) if self._max_size == "auto" else self._max_size
        return min(most, wanted)

    def new_name(self, saved: Saved) -> str:
        """Return what llama-server is to call the file that it writes."""
        return f"{_NEW}{saved.name}"

    def keep(self, saved: Saved, written: int) -> bool:
        """Keep what llama-server wrote, ``written`` bytes; return False if it isn't all there."""
        new = self.folder / self.new_name(saved)
        try:
            new.chmod(FILE)
            saved.check, seen = _checksum(new)
            saved.size = seen.size
            if seen.size != written:
                new.unlink()
                return False
            new.replace(self._state(saved.name))
            self.note(saved)
        except OSError as error:
            _log.warning("a conversation cannot be kept: %s", error)
            self.remove(saved)
            return False
        self._checked[saved.name] = seen
        return True

    def note(self, saved: Saved) -> None:
        """Write down what is known of ``saved``. Raises ``OSError``."""
        write_private(self.folder / f"{saved.name}{_FACTS}", _written(saved))

    def is_whole(self, saved: Saved) -> bool:
        """Return whether its file is as it was written."""
        file = self._state(saved.name)
        try:
            if self._checked.get(saved.name) == _Seen.of(file.stat()):
                return True
            check, seen = _checksum(file)
        except OSError:
            return False
        if (check, seen.size) != (saved.check, saved.size):
            return False
        self._checked[saved.name] = seen
        return True

    def file_name(self, saved: Saved) -> str:
        """Return what llama-server is to read."""
        return f"{saved.name}{_STATE}"

    def remove(self, saved: Saved) -> None:
        """Remove the files of ``saved``, as far as they are there."""
        self._checked.pop(saved.name, None)
        names = f"{saved.name}{_FACTS}", f"{saved.name}{_STATE}", self.new_name(saved)
        for name in names:
            with contextlib.suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)

    def _state(self, name: str) -> Path:
        return self.folder / f"{name}{_STATE}"


def _checksum(file: Path) -> tuple[int, _Seen]:
    check = 0
    with file.open("rb", buffering=0) as stream:
        while block := stream.read(_BLOCK):
            check = zlib.crc32(block, check)
        return check, _Seen.of(os.fstat(stream.fileno()))


def _written(saved: Saved) -> bytes:
    links = b"".join(saved.chain.links).hex()
    fields = {name: getattr(saved, name) for name in Saved.__slots__ if name != "chain"}
    return orjson.dumps({**fields, "links": links, "sizes": saved.chain.sizes})


def _read(facts: Path) -> Saved | None:
    """Return what is written there; ``None`` if that can't be understood, or is another's name."""
    try:
        fields: dict[str, Any] = orjson.loads(facts.read_bytes())
        links, sizes = bytes.fromhex(fields.pop("links")), tuple(fields.pop("sizes"))
        each = tuple(links[at : at + 16] for at in range(0, len(links), 16))
        saved = Saved(**fields, chain=Chain(each, sizes))
        numbers = saved.size, saved.check, saved.tokens, saved.seconds, saved.used, saved.created
        if not all(isinstance(number, int | float) for number in numbers):
            return None
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None
    return saved if saved.name == facts.stem and len(each) == len(sizes) else None
