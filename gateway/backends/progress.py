"""Tells whether a loading llama-server makes progress, however slow its disk is.

Three things count: a line (or a dot) in its log, bytes read, and memory taken. What is mapped
and not read shows as memory, or as reads from the disk itself. Without /proc, on macOS, only the
log is there to go by.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import NamedTuple

from gateway.backends.logring import LogRing
from gateway.backends.usage import group_members

#: Bytes that count as progress. Answering /health, for as long as anybody waits, reads far less.
_STEP = 2**20


class Work(NamedTuple):
    """The work that the processes of a group have done. Bytes."""

    read: int = 0  # by system calls, and from disks
    resident: int = 0
    by_calls: int = 0  # of what was read: once, wherever it lay


class LoadProgress:
    """The progress of one load, by the process group ``group``, that writes to ``log``."""

    def __init__(self, group: int, log: LogRing, patience: float) -> None:
        self._group = group
        self._log = log
        self._patience = patience
        self._pause = min(patience / 8, 0.5)  # between two looks into /proc
        self._received = log.received
        self._work = Work()
        self._done = 0  # bytes of the model that are loaded, about
        self._since = self._looked = time.monotonic()

    async def stalled(self) -> bool:
        """Return whether nothing has come of it for ``patience`` seconds. To be asked
        all the time.
        """
        now = time.monotonic()
        if self._log.received != self._received:
            self._received, self._since = self._log.received, now
        if now - self._looked >= self._pause:
            self._looked = now
            self._note(await asyncio.to_thread(work_of, self._group))
        return time.monotonic() - self._since > self._patience

    def part_of(self, size: int) -> float | None:
        """Return roughly which share of ``size`` bytes is loaded, from 0 to 1; ``None`` if unknown.

        A mapped file shows in the memory that the group holds, and one that is read in the bytes it
        has read.
        """
        return min(self._done / size, 1.0) if self._done and size else None

    def _note(self, work: Work) -> None:
        before = self._work
        self._done = max(self._done, work.by_calls, work.resident)
        if work.read < before.read:  # bytes read by a process that has ended don't count any more
            self._work = before = Work(work.read, before.resident)
        if work.read - before.read >= _STEP or work.resident - before.resident >= _STEP:
            self._work = Work(work.read, max(work.resident, before.resident))
            self._since = time.monotonic()


def work_of(group: int, root: Path = Path("/")) -> Work:
    """Return what the living processes of a group have done (proc(5), /proc/PID/io and statm).
    Blocks.
    """
    read = resident = by_calls = 0
    for pid in group_members(group):
        folder = root / "proc" / str(pid)
        with contextlib.suppress(OSError):  # it has just ended
            for line in (folder / "io").read_text().splitlines():
                name, _, number = line.partition(": ")
                if name in ("rchar", "read_bytes"):
                    read += int(number)
                    by_calls += int(number) if name == "rchar" else 0
            resident += int((folder / "statm").read_text().split()[1])
    return Work(read, resident * os.sysconf("SC_PAGE_SIZE"), by_calls)
