"""Downloads the files of one model from the hub: in the end all of them are there and verified, or
none.

A file grows under a hidden name beside its place, which holds its hash, and gets its own when all
of it is there and its hash is right. Whatever ends a pull - Ctrl-C, SIGKILL, the network, a full
disk - the next one goes on at the byte where it ended. Blocking.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final, NamedTuple

from gateway.errors import BadRequest, Forbidden, GatewayError
from gateway.models.hub import HubFile, Repository, Variant, safe_path
from gateway.models.hub_client import Hub, HubFailed, Interrupted

#: Seconds to wait before each retry; any received byte starts them anew.
WAITS: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 60.0, 60.0, 60.0)
#: The longest wait in seconds, even if the hub asks for more: somebody is waiting.
_LONGEST_WAIT: Final = 120.0
#: Seconds between two reports.
_OFTEN: Final = 0.2
_BLOCK: Final = 2**20
#: Bytes that must stay free on the disk.
SPARE: Final = 64 * 2**20
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class PullDiskFull(GatewayError):
    """507: there is no room for the model (RFC 4918, 11.5)."""

    status = 507
    default_code = "disk_full"
    retryable = False


class NotStored(Forbidden):
    """The folder can't be written to."""

    default_code = "not_writable"


class WrongHash(HubFailed):
    """The received file differs from the hub's."""

    default_code = "wrong_hash"
    retryable = False


class AlreadyThere(BadRequest):
    """Another file has that name, or another process fetches it."""

    status = 409
    default_code = "already_there"


class PullProgress(NamedTuple):
    """The progress of a pull. ``stage``: downloading, checking or waiting. Bytes, of all its files.

    ``fetched``: those that have come over the network by now. ``note``: why it waits, and ``wait``
    for how many seconds more.
    """

    stage: str
    file: str
    done: int
    total: int
    fetched: int = 0
    note: str | None = None
    wait: float = 0.0


Told = Callable[[PullProgress], None]


@dataclass(frozen=True, slots=True)
class PullPlan:
    """A plan: what to fetch, and below which folder (``llm_storage``) it goes."""

    repository: Repository
    variant: Variant
    projector: HubFile | None
    storage: Path

    @property
    def files(self) -> tuple[HubFile, ...]:
        """All files in order; the projector is the last."""
        return (*self.variant.files, *((self.projector,) if self.projector is not None else ()))

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def place(self, file: HubFile) -> Path:
        """Return where a file goes: ``OWNER/REPO/its path``, as other programs store
        them as well.
        """
        if safe_path(file.path) is None:
            raise ValueError(f"no name for a file: {file.path!r}")
        return self.storage.joinpath(*self.repository.id.split("/"), *file.path.split("/"))

    def part(self, file: HubFile) -> Path:
        """Return where it grows: another file in the repository never goes on from this one."""
        place = self.place(file)
        return place.with_name(f".{place.name}.{(file.sha256 or file.blob or '')[:12]}.part")

    @property
    def stored(self) -> int:
        """The bytes that are already here, of complete and partial files."""
        return sum(
            file.size if self.place(file).exists() else min(_size(self.part(file)), file.size)
            for file in self.files
        )


def pull(plan: PullPlan, hub: Hub, told: Told, *, replace: bool = False) -> list[Path]:
    """Fetch what is missing; returns where all of it is. ``replace``: what differs, as well.

    Raises :class:`GatewayError`, whose message says what to do. ``KeyboardInterrupt`` may end it.
    """
    return _RunningPull(plan, hub, told, replace=replace).run()


def discard(plan: PullPlan) -> None:
    """Delete what has come of files that aren't whole. Raises ``OSError``."""
    for file in plan.files:
        plan.part(file).unlink(missing_ok=True)


class _RunningPull:
    def __init__(self, plan: PullPlan, hub: Hub, told: Told, *, replace: bool) -> None:
        self._plan = plan
        self._hub = hub
        self._told = told
        self._replace = replace
        self._before = 0  # bytes of files that are done
        self._fetched = 0
        self._told_at = 0.0

    def run(self) -> list[Path]:
        for file in self._plan.files:
            if file.sha256 is None and file.blob is None:
                raise HubFailed(
                    f"{self._hub.host} does not say what hash {file.path} has: if it is a mirror, "
                    "try another (HF_ENDPOINT)"
                )
        places = [self._plan.place(file) for file in self._plan.files]
        with _writing(self._plan.storage):
            for place in places:
                place.parent.mkdir(parents=True, exist_ok=True)
        self._check_disk()
        for file, place in zip(self._plan.files, places, strict=True):
            if not self._is_there(file, place):
                self._fetch(file, place)
            self._before += file.size
        return places

    def _check_disk(self) -> None:
        """Check that there is room for the rest. Raises :class:`PullDiskFull`."""
        missing = self._plan.size - self._plan.stored
        folder = self._plan.place(self._plan.files[0]).parent
        free = shutil.disk_usage(folder).free
        if missing and free < missing + SPARE:
            raise PullDiskFull(
                f"{_gib(missing)} are still to come, and the disk of {self._plan.storage} has "
                f"{_gib(free)} free: make room there, or let llm_storage name another"
            )

    def _is_there(self, file: HubFile, place: Path) -> bool:
        """Return whether the file is there already, and right."""
        if not place.exists():
            return False
        if place.stat().st_size == file.size:
            with place.open("rb") as stream:
                if self._is_right(file, stream):
                    return True
        if not self._replace:
            raise AlreadyThere(
                f"{place} is there already, and is not what {self._hub.host} has now: `--replace` "
                "fetches that in its place"
            )
        return False

    # --- one file ----------------------------------------------------------------------------

    def _fetch(self, file: HubFile, place: Path) -> None:
        part = self._plan.part(file)
        with _writing(self._plan.storage), _locked(part) as stream:
            for old in place.parent.glob(f".{_literal(place.name)}.*.part"):
                if old != part:  # of a file that the repository had before
                    old.unlink(missing_ok=True)
            try:
                self._fill(file, stream)
            finally:
                if not stream.seek(0, os.SEEK_END) and file.size:
                    part.unlink(missing_ok=True)
            stream.seek(0)
            if not self._is_right(file, stream):
                part.unlink(missing_ok=True)
                raise WrongHash(
                    f"{file.path} did not come as {self._hub.host} has it (its hash is another) "
                    "and was deleted: the same again fetches it anew; if it stays so, a mirror or "
                    "a proxy in between is broken"
                )
            os.fsync(stream.fileno())
            part.replace(place)
            _sync_folder(place.parent)

    def _fill(self, file: HubFile, stream: IO[bytes]) -> None:
        """Get the rest of it, however often it takes."""
        tries = 0
        if (most := stream.seek(0, os.SEEK_END)) > file.size:
            most = stream.truncate(0)
        while (start := stream.seek(0, os.SEEK_END)) < file.size:
            wait = None
            try:
                self._take(file, stream, start)
                problem = f"{self._hub.host} has ended the transfer too soon"
            except Interrupted as error:
                wait, problem = error.wait, error.message
            reached = stream.seek(0, os.SEEK_END)
            if reached > most:  # else a server without ranges could restart for ever
                most, tries = reached, 0
                if wait is None and reached < file.size:
                    continue
            if reached >= file.size:
                break
            if tries >= len(WAITS) or (wait or 0) > _LONGEST_WAIT:
                later = f" in {wait:.0f} s" if wait else ""
                has = f"; {_gib(reached)} of {_gib(file.size)} have come" if reached else ""
                raise HubFailed(f"{problem}{has}: the same again{later} goes on from there")
            self._wait(file, max(WAITS[tries], wait or 0), problem)
            tries += 1

    def _take(self, file: HubFile, stream: IO[bytes], start: int) -> None:
        at = start
        self._tell("downloading", file, at, now=True)
        with contextlib.closing(self._hub.stream(self._plan.repository, file, start)) as pieces:
            for piece in pieces:
                if piece is None:  # it starts over
                    stream.seek(0)
                    stream.truncate()
                    at = 0
                    continue
                at += len(piece)
                if at > file.size:
                    stream.truncate(0)
                    raise WrongHash(
                        f"{self._hub.host} sends more of {file.path} than the {file.size} bytes "
                        "that it has: the same again fetches it anew"
                    )
                _write(stream, piece)
                self._fetched += len(piece)
                self._tell("downloading", file, at)

    def _wait(self, file: HubFile, seconds: float, problem: str) -> None:
        deadline = time.monotonic() + seconds
        has = _size(self._plan.part(file))
        while (left := deadline - time.monotonic()) > 0:
            self._tell("waiting", file, has, now=True, note=problem, wait=left)
            time.sleep(min(left, 1.0))

    def _is_right(self, file: HubFile, stream: IO[bytes]) -> bool:
        """Return whether its hash is the hub's; read from the disk, where it will be used."""
        if file.sha256 is not None:
            found, wanted = hashlib.sha256(), file.sha256
        else:
            # Git's hash (gitformat-pack(5)); it is no defence against the hub itself.
            found, wanted = hashlib.sha1(usedforsecurity=False), file.blob or ""
            found.update(f"blob {file.size}\0".encode())
        block = memoryview(bytearray(_BLOCK))
        done = 0
        while size := stream.readinto(block):  # type: ignore[attr-defined]
            found.update(block[:size])
            done += size
            self._tell("checking", file, done)
        return found.hexdigest() == wanted.lower()

    def _tell(
        self,
        stage: str,
        file: HubFile,
        done: int,
        *,
        now: bool = False,
        note: str | None = None,
        wait: float = 0.0,
    ) -> None:
        moment = time.monotonic()
        if now or moment - self._told_at >= _OFTEN or done == file.size:
            self._told_at = moment
            name, all_done = PurePosixPath(file.path).name, self._before + done
            size = self._plan.size
            self._told(PullProgress(stage, name, all_done, size, self._fetched, note, wait))


@contextlib.contextmanager
def _writing(storage: Path) -> Iterator[None]:
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
def _locked(part: Path) -> Iterator[IO[bytes]]:
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


def _write(stream: IO[bytes], piece: bytes) -> None:
    """Write all of ``piece``: an unbuffered write may end in the middle."""
    left = memoryview(piece)
    while left:
        left = left[stream.write(left) :]


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _literal(name: str) -> str:
    """Return a pattern that only ``name`` matches."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
