"""What a process holds, from /proc (proc(5)), and what a series of figures says. Linux only."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def resident(pid: int) -> int:
    """Bytes of memory that a process holds; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0


def open_files(pid: int) -> Counter[str]:
    """The open files of a process by kind: ``socket``, ``pipe``, ``anon_inode``, or their names.

    Of a name with something made up in it (``run-x3k9``) the rest stays.
    """
    found: Counter[str] = Counter()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found[re.sub(r":.*|(?<=/run-)\w+", "", str(entry.readlink()))] += 1
    return found


def descendants(pid: int) -> set[int]:
    """The processes below ``pid``."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text()
                parents[int(entry.name)] = int(stat[stat.rindex(")") + 2 :].split()[1])
    found: set[int] = set()
    below = {pid}
    while below := {child for child, parent in parents.items() if parent in below} - found:
        found |= below
    return found


def naming(text: str) -> set[int]:
    """The processes with ``text`` on their command line."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if text.encode() in (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
    return found


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """How much the second figure grows while the first grows by one (least squares)."""
    count = len(samples)
    if count < 2:
        return 0.0
    middle = sum(x for x, _ in samples) / count
    mean = sum(y for _, y in samples) / count
    spread = sum((x - middle) ** 2 for x, _ in samples)
    return sum((x - middle) * (y - mean) for x, y in samples) / spread if spread else 0.0


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the sorted ``values`` are; 0 if there are none."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0
