"""SHA-256 of files, remembered as long as a file stays as it was. Blocks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

from gateway.private_files import write_private

_BLOCK: Final = 2**20


def mark_of(stream: IO[bytes]) -> str:
    """Return what is another as soon as the file is: its size, when it was written, and which it
    is.
    """
    status = os.fstat(stream.fileno())
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}-{status.st_dev}"


class Hashes:
    """The hashes of files. ``file``: where they are kept; what is lost of them is found anew."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._known: dict[str, list[str]] = self._read()

    def of(self, path: Path, told: Callable[[int], None]) -> tuple[str, str]:
        """Return mark and hash of ``path``; ``told`` of the bytes that are done. Raises
        ``OSError``.
        """
        with path.open("rb", buffering=0) as stream:
            mark = mark_of(stream)
            with self._lock:
                known = self._known.get(str(path))
            if known is not None and known[0] == mark:
                return mark, known[1]
            found = hashlib.sha256()
            block = memoryview(bytearray(_BLOCK))
            done = 0
            while size := stream.readinto(block):
                found.update(block[:size])
                done += size
                told(done)
            if mark_of(stream) == mark:
                self._remember(path, mark, found.hexdigest())
        return mark, found.hexdigest()

    def _read(self) -> dict[str, list[str]]:
        if self._file is not None:
            with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
                found = json.loads(self._file.read_bytes())
                return {str(key): [str(mark), str(sha)] for key, (mark, sha) in found.items()}
        return {}

    def _remember(self, path: Path, mark: str, sha256: str) -> None:
        with self._lock:
            # Others write there, too: what they have found meanwhile stays.
            self._known = self._read() | self._known | {str(path): [mark, sha256]}
            if self._file is not None:
                with contextlib.suppress(OSError):  # then it is found anew
                    write_private(self._file, json.dumps(self._known))
