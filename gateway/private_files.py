"""Files and folders that only their owner may read, whatever the umask. All functions block.

Existing ones keep their mode: whoever opened them to others meant to.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path
from typing import IO, Final

FILE: Final = 0o600
FOLDER: Final = 0o700


def make_folder(folder: Path) -> None:
    """Make ``folder``, and those above it that are missing, each 0700. Raises ``OSError``."""
    for one in (*reversed(folder.parents), folder):
        # mkdir() gives parents the mode of the umask alone.
        if not one.exists():
            one.mkdir(mode=FOLDER, exist_ok=True)
        elif not one.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(one))


def close_to_others(folder: Path) -> None:
    """Make ``folder`` 0700 if every user may read it: one of ours, with nothing but files.

    A folder with folders in it may be there for more than this, and one without rights for all was
    meant for a group.
    """
    status = folder.stat()
    mode = stat.S_IMODE(status.st_mode)
    ours = status.st_uid == os.geteuid() and not mode & stat.S_ISVTX
    if ours and mode & stat.S_IRWXO and not any(one.is_dir() for one in folder.iterdir()):
        with contextlib.suppress(OSError):  # a file system without modes, as of memory cards
            folder.chmod(FOLDER)


def open_private(file: Path) -> IO[str]:
    """Open ``file`` for reading and appending, made 0600 if it doesn't exist. Raises
    ``OSError``.
    """
    number = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, FILE)
    return os.fdopen(number, "a+", encoding="utf-8")


def write_private(file: Path, data: str | bytes) -> None:
    """Replace ``file`` by ``data``, all of it or nothing, 0600. Raises ``OSError``."""
    new = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    number = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE)
    try:
        with os.fdopen(number, "wb") as stream:
            stream.write(data.encode() if isinstance(data, str) else data)
        new.replace(file)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def is_open_to_all(file: Path) -> bool:
    """Return whether every user of this machine can read ``file``, by its mode and its folder's."""
    try:
        modes = file.stat().st_mode, file.parent.stat().st_mode
    except OSError:
        return False
    return bool(modes[0] & stat.S_IROTH and modes[1] & stat.S_IXOTH)
