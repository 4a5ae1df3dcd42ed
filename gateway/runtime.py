"""The runtime folder, where a running gateway has its sockets, and the command line finds them.

The folder is private and its path short: a Unix socket's path may have 107 bytes (unix(7)). It is
made for each run, in one place with those of the user's other gateways: in systemd's
``RUNTIME_DIRECTORY``, in ``XDG_RUNTIME_DIR/llm-gateway``, else in ``/tmp/llm-gateway-UID``. A
gateway holds a lock on its folder (flock(2)) for as long as it lives, however it dies; a gateway
that starts removes the folders without one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from gateway.private_files import make_folder, open_private, write_private
from gateway.problems import InvalidFiles, Problem

_log = logging.getLogger(__name__)

_PREFIX = "run-"
#: The file in a runtime folder that names the data folder of its gateway.
_WHOSE = "data_dir"
_LONGEST = 107 - len(f"/{_PREFIX}12345678/control.sock")
#: How often a new folder is tried: another starting gateway may take it for a leftover, but rarely.
_TRIES = 100


class Runtime:
    """The runtime folder, the lock on the data folder, and the note of where both are.

    All methods block: they are for the start and the end.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._note = data_dir / "gateway.json"
        self._lock: IO[str] | None = None
        self._held: int | None = None
        self.folder = Path()

    @property
    def control_socket(self) -> str:
        """The socket at which the command line talks to the running gateway, as an
        administrator.
        """
        return str(self.folder / "control.sock")

    def open(self) -> None:
        """Make the folders and take the lock; remove what killed gateways left behind.

        Raises :class:`InvalidFiles` if the data folder can't be used, or is in use.
        """
        try:
            make_folder(self._data_dir)
            self._lock = open_private(self._data_dir / "gateway.lock")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._refuse(f"is in use by another gateway{self._other()}")
        except OSError as error:
            self._refuse(f"cannot be used: {error.strerror}")
        homes = list(runtime_homes())
        self._clean_up(homes)
        self.folder, self._held = self._make_folder(homes)
        write_private(self.folder / _WHOSE, str(self._data_dir))
        # At once: who reads it never sees half of it.
        note = {"pid": os.getpid(), "control": self.control_socket}
        write_private(self._note, json.dumps(note))

    def close(self) -> None:
        """Remove what :meth:`open` made."""
        with contextlib.suppress(OSError):
            self._note.unlink(missing_ok=True)
        if self._held is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            os.close(self._held)
        if self._lock is not None:
            self._lock.close()

    def _clean_up(self, homes: list[Path]) -> None:
        left = {folder for home in homes for folder in home.glob(f"{_PREFIX}*")}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            # It may have been started with other variables, so that its place was another.
            before = Path(json.loads(self._note.read_bytes())["control"]).parent
            if before.name.startswith(_PREFIX):
                left.add(before)
        for folder in sorted(left):
            if (held := _hold(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(held)
                _log.info("removed %s, which a gateway that was killed left behind", folder)

    def _make_folder(self, homes: list[Path]) -> tuple[Path, int]:
        for home in homes:
            for _ in range(_TRIES):
                try:
                    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=home))  # mode 0700
                except OSError:
                    break
                if (held := _hold(folder)) is not None:
                    return folder, held
        self._refuse("needs a temporary folder with a shorter path: set XDG_RUNTIME_DIR")
        raise AssertionError

    def _other(self) -> str:
        try:
            return f" (process {json.loads(self._note.read_text())['pid']})"
        except (OSError, ValueError, KeyError):
            return ""

    def _refuse(self, what: str) -> None:
        if self._lock is not None:
            self._lock.close()
        raise InvalidFiles([Problem(str(self._data_dir), "data_dir", None, what)])


def other_gateways(data_dir: Path) -> list[Path]:
    """Return the data folders of this user's running gateways, without the one on ``data_dir``.

    Gateways of a service, or of another user, can't be seen.
    """
    found = []
    for folder in sorted(folder for home in runtime_homes() for folder in home.glob(f"{_PREFIX}*")):
        with contextlib.suppress(OSError):
            other = Path((folder / _WHOSE).read_text())
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
                control.settimeout(1)
                control.connect(str(folder / "control.sock"))
            if other != data_dir:
                found.append(other)
    return found


def runtime_homes() -> Iterator[Path]:
    """Yield folders for runtime folders, the best first; each exists, and is nobody else's."""
    # systemd makes one for the service (RuntimeDirectory=) and removes it afterwards.
    given = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if given and len(given) <= _LONGEST and Path(given).is_dir():
        yield Path(given)
    wanted = [
        Path(base) / f"llm-gateway-{os.geteuid()}"
        for base in dict.fromkeys((tempfile.gettempdir(), "/tmp"))  # noqa: S108
    ]
    if base := os.environ.get("XDG_RUNTIME_DIR"):
        wanted.insert(0, Path(base) / "llm-gateway")
    for home in wanted:
        if len(str(home)) <= _LONGEST and home.parent.is_dir() and _is_private(home):
            yield home


def _is_private(home: Path) -> bool:
    """Make ``home`` if it doesn't exist; return whether it is our own and closed to others.

    In /tmp anybody may have made the folder before us, or a link in its place.
    """
    try:
        with contextlib.suppress(FileExistsError):
            home.mkdir(mode=0o700)
        status = home.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            _log.warning("%s is not a folder of this user: not used", home)
            return False
        if status.st_mode & 0o077:
            home.chmod(0o700)
    except OSError:
        return False
    return True


def _hold(folder: Path) -> int | None:
    """Return a descriptor of ``folder`` that holds its lock, or ``None`` if somebody else
    has it.
    """
    try:
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(number), folder.stat()):
            return number
    except OSError:
        pass  # also if it has been removed meanwhile
    os.close(number)
    return None
