"""Fetches the files of one model, from the hub or from another machine: in the end all of them are
there and verified, or none.

A file grows under a hidden name beside its place, which holds its hash, and gets its own when all
of it is there and its hash is right. Whatever ends this - Ctrl-C, SIGKILL, the network, a full
disk - the next one goes on at the byte where it ended. Blocking.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Final, NamedTuple, Protocol

from gateway.models.hub import HubFile
from gateway.models.hub_client import HubFailed, Interrupted, Pieces
from gateway.models.part_file import (
    AlreadyThere,
    PullDiskFull,
    locked,
    sync_folder,
    write_all,
    writing,
)

#: Seconds to wait before each retry; any received byte starts them anew.
WAITS: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 60.0, 60.0, 60.0)
#: The longest wait in seconds, even if the hub asks for more: somebody is waiting.
_LONGEST_WAIT: Final = 120.0
#: Seconds between two reports.
_OFTEN: Final = 0.2
_BLOCK: Final = 2**20
#: Bytes that must stay free on the disk.
SPARE: Final = 64 * 2**20


class WrongHash(HubFailed):
    """The received file differs from the one that was asked for."""

    default_code = "wrong_hash"
    retryable = False


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


class Source(Protocol):
    """Where files come from."""

    @property
    def host(self) -> str:
        """Its name, for people."""

    def stream(self, file: HubFile, start: int) -> Pieces:
        """Yield the bytes of a file from ``start`` on; ``None`` first where it begins at 0 all the
        same.

        The stream may end early. Raises :class:`Interrupted` if a retry may work soon, else
        :class:`GatewayError`.
        """


class Plan(Protocol):
    """What is fetched, and where it goes: below ``storage`` (``llm_storage``)."""

    @property
    def storage(self) -> Path: ...

    @property
    def files(self) -> tuple[HubFile, ...]:
        """All files in order."""

    def place(self, file: HubFile) -> Path:
        """Return where a file goes."""

    def part(self, file: HubFile) -> Path:
        """Return where it grows: another file of that name never goes on from this one."""


def size_of(plan: Plan) -> int:
    """Return the bytes of all files."""
    return sum(file.size for file in plan.files)


def stored(plan: Plan) -> int:
    """Return the bytes that are already here, of complete and partial files."""
    return sum(
        file.size if plan.place(file).exists() else min(_size(plan.part(file)), file.size)
        for file in plan.files
    )


def part_of(place: Path, file: HubFile) -> Path:
    """Return where the file for ``place`` grows: beside it, with its hash in the name."""
    return place.with_name(f".{place.name}.{(file.sha256 or file.blob or '')[:12]}.part")


def fetch(
    plan: Plan,
    source: Source,
    told: Told,
    *,
    replace: bool = False,
    waits: Sequence[float] | None = None,
) -> list[Path]:
    """Fetch what is missing; returns where all of it is. ``replace``: what differs, as well.

    ``waits``: see :data:`WAITS`.

    Raises :class:`GatewayError`, whose message says what to do. ``KeyboardInterrupt`` may end it.
    """
    return _Fetching(
        plan, source, told, replace=replace, waits=WAITS if waits is None else waits
    ).run()


class _Fetching:
    def __init__(
        self, plan: Plan, source: Source, told: Told, *, replace: bool, waits: Sequence[float]
    ) -> None:
        self._plan = plan
        self._source = source
        self._told = told
        self._replace = replace
        self._waits = waits
        self._before = 0  # bytes of files that are done
        self._fetched = 0
        self._told_at = 0.0

    def run(self) -> list[Path]:
        for file in self._plan.files:
            if file.sha256 is None and file.blob is None:
                raise HubFailed(
                    f"{self._source.host} does not say what hash {file.path} has: if it is a "
                    "mirror, try another (HF_ENDPOINT)"
                )
        places = [self._plan.place(file) for file in self._plan.files]
        with writing(self._plan.storage):
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
        missing = size_of(self._plan) - stored(self._plan)
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
                f"{place} is there already, and is not what {self._source.host} has now: "
                "`--replace` fetches that in its place"
            )
        return False

    # --- one file ----------------------------------------------------------------------------

    def _fetch(self, file: HubFile, place: Path) -> None:
        part = self._plan.part(file)
        with writing(self._plan.storage), locked(part) as stream:
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
                    f"{file.path} did not come as {self._source.host} has it (its hash is another) "
                    "and was deleted: the same again fetches it anew; if it stays so, a mirror or "
                    "a proxy in between is broken"
                )
            os.fsync(stream.fileno())
            part.replace(place)
            sync_folder(place.parent)

    def _fill(self, file: HubFile, stream: IO[bytes]) -> None:
        """Get the rest of it, however often it takes."""
        tries = 0
        if (most := stream.seek(0, os.SEEK_END)) > file.size:
            most = stream.truncate(0)
        while (start := stream.seek(0, os.SEEK_END)) < file.size:
            wait = None
            try:
                self._take(file, stream, start)
                problem = f"{self._source.host} has ended the transfer too soon"
            except Interrupted as error:
                wait, problem = error.wait, error.message
            reached = stream.seek(0, os.SEEK_END)
            if reached > most:  # else a server without ranges could restart for ever
                most, tries = reached, 0
                if wait is None and reached < file.size:
                    continue
            if reached >= file.size:
                break
            if tries >= len(self._waits) or (wait or 0) > _LONGEST_WAIT:
                later = f" in {wait:.0f} s" if wait else ""
                has = f"; {_gib(reached)} of {_gib(file.size)} have come" if reached else ""
                raise HubFailed(f"{problem}{has}: the same again{later} goes on from there")
            self._wait(file, max(self._waits[tries], wait or 0), problem)
            tries += 1

    def _take(self, file: HubFile, stream: IO[bytes], start: int) -> None:
        at = start
        self._tell("downloading", file, at, now=True)
        with contextlib.closing(self._source.stream(file, start)) as pieces:
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
                        f"{self._source.host} sends more of {file.path} than the {file.size} bytes "
                        "that it has: the same again fetches it anew"
                    )
                write_all(stream, piece)
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
            size = size_of(self._plan)
            self._told(PullProgress(stage, name, all_done, size, self._fetched, note, wait))


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
