"""Where a running gateway keeps its sockets, and how the command line finds it.

The folder is private and its path short: a Unix socket's path may have 107 bytes (unix(7)).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO

from gateway.validation import InvalidFiles, Problem

_LONGEST = 107 - len("/control.sock")


class Runtime:
    """The runtime folder, the lock on the data folder, and the note of where both are.

    All methods block: they are for the start and the end.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._note = data_dir / "gateway.json"
        self._lock: IO[str] | None = None
        self._own_folder = False
        self.folder = Path()

    @property
    def control_socket(self) -> str:
        """Where the command line talks to the running gateway, as an administrator."""
        return str(self.folder / "control.sock")

    def open(self) -> None:
        """Make the folders and take the lock.

        Raises :class:`InvalidFiles` if the data folder can't be used, or is in use.
        """
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = (self._data_dir / "gateway.lock").open("a+")
            _lock(self._lock)
        except BlockingIOError:
            self._refuse(f"is in use by another gateway{self._other()}")
        except OSError as error:
            self._refuse(f"cannot be used: {error.strerror}")
        self.folder = self._make_folder()
        note = self._note.with_suffix(".new")
        note.write_text(json.dumps({"pid": os.getpid(), "control": self.control_socket}))
        note.replace(self._note)  # at once: who reads it never sees half of it

    def close(self) -> None:
        """Remove what :meth:`open` made."""
        with contextlib.suppress(OSError):
            self._note.unlink(missing_ok=True)
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            for socket in self.folder.glob("*.sock"):
                socket.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()

    def _make_folder(self) -> Path:
        # systemd makes one for the service (RuntimeDirectory=) and removes it afterwards.
        given = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
        if given and len(given) <= _LONGEST:
            return Path(given)
        self._own_folder = True
        for base in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):  # noqa: S108
            if base and Path(base).is_dir() and len(base) + len("/llmgw-12345678") <= _LONGEST:
                with contextlib.suppress(OSError):
                    return Path(tempfile.mkdtemp(prefix="llmgw-", dir=base))  # mode 0700
        self._refuse("needs a temporary folder with a shorter path: set XDG_RUNTIME_DIR")
        raise AssertionError

    def _other(self) -> str:
        try:
            return f" (process {json.loads(self._note.read_text())['pid']})"
        except (OSError, ValueError, KeyError):
            return ""

    def _refuse(self, what: str) -> None:
        raise InvalidFiles([Problem(str(self._data_dir), "data_dir", None, what)])


def _lock(file: IO[str]) -> None:
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
