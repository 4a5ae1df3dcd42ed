"""Files that grow: locked, written to the disk, and what the disk says in words for a person."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from gateway.errors import BadRequest, Forbidden, GatewayError

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class PullDiskFull(GatewayError):
    """507: there is no room for the model (RFC 4918, 11.5)."""

    status = 507
    default_code = "disk_full"
    retryable = False


class NotStored(Forbidden):
    """The folder can't be written to."""

    default_code = "not_writable"


class AlreadyThere(BadRequest):
    """Another file has that name, or another process fetches it."""

    status = 409
    default_code = "already_there"


@contextlib.contextmanager
def writing(storage: Path) -> Iterator[None]:
    """Yield what the disk says, in words for a person."""
    try:
        yield
    except GatewayError:
        raise
    except OSError as error:
        where = error.filename or storage
        if error.errno in _FULL:
            raise PullDiskFull(
                f"the disk of {storage} is full: make room there, and the same again goes on from "
                "where it ended"
            ) from None
        if error.errno == errno.EFBIG:
            raise PullDiskFull(
                f"the file is larger than one may be on the disk of {storage}, or for this user "
                "(ulimit -f): let llm_storage name a folder where it may be so large"
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise NotStored(
                f"{where} cannot be written: {error.strerror}; llm_storage ({storage}) must be "
                "writable for who pulls"
            ) from None
        raise NotStored(f"{where} cannot be written: {error.strerror or error}") from None


@contextlib.contextmanager
def locked(part: Path) -> Iterator[IO[bytes]]:
    """Open ``part`` with an exclusive lock, unbuffered, so that the kernel has each byte at
    once.
    """
    number = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    with os.fdopen(number, "r+b", buffering=0) as stream:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyThere(
                f"another process fetches a file of {part.parent} at this moment",
                code="being_pulled",
            ) from None
        if not part.exists() or not os.path.samestat(os.fstat(number), part.stat()):
            raise AlreadyThere(
                f"another process has just ended with a file of {part.parent}: once more",
                code="being_pulled",
            )
        yield stream


def write_all(stream: IO[bytes], piece: bytes) -> None:
    """Write all of ``piece``: an unbuffered write may end in the middle."""
    left = memoryview(piece)
    while left:
        left = left[stream.write(left) :]


def sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
