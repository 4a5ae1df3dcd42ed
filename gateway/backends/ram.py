"""Measures how much RAM there is for models, and how much of it is free. Blocks.

Held back for others: 10%, at least 1 GiB, for the system, its file cache and whoever works on
this machine. Inside a cgroup with a limit (container, ``MemoryMax=``) it is 5%, at least 256 MiB,
for the gateway itself and the kernel's memory on its behalf; the system is outside of that limit.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from gateway.backends.devices import Device, held_back

RAM = "RAM"
_MIB = 2**20
_GIB = 2**30


class Limit(NamedTuple):
    """A memory limit of a cgroup, and how much is free below it. Bytes."""

    limit: int
    free: int | None


def ram_device(root: Path) -> Device:
    """Return the RAM as it is now, or a cgroup's limit if that is less."""
    total, free = ram_total(root), ram_free(root)
    best = Device(RAM, "RAM", total, free, held_back(total, 0.1, _GIB))
    for limit, left in cgroup_limits(root):
        reserve = held_back(limit, 0.05, 256 * _MIB)
        inside = Device(RAM, "limit of the cgroup", limit, left, reserve)
        best = min(best, inside, key=lambda device: device.budget)
        if left is not None:
            free = left if free is None else min(free, left)
    return Device(RAM, best.description, best.total, free, best.reserve)


def ram_total(root: Path) -> int:
    """Return bytes of RAM, from /proc/meminfo or, without a /proc (macOS), from sysconf(3)."""
    if (size := _meminfo(root, "MemTotal")) is not None:
        return size
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def ram_free(root: Path) -> int | None:
    """Return bytes that could be had without swapping (proc(5), MemAvailable); ``None`` without
    /proc.

    The cache of ZFS would make room too, down to its minimum, and is not in that number.
    """
    free = _meminfo(root, "MemAvailable")
    if free is None:
        return None
    with contextlib.suppress(OSError, LookupError, ValueError):
        lines = (root / "proc/spl/kstat/zfs/arcstats").read_text().splitlines()
        values = {fields[0]: fields[-1] for line in lines if (fields := line.split())}
        free += max(int(values["size"]) - int(values["c_min"]), 0)
    return free


def _meminfo(root: Path, name: str) -> int | None:
    with contextlib.suppress(OSError):
        text = (root / "proc/meminfo").read_text()
        if found := re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE):
            return int(found[1]) * 1024
    return None


def cgroup_limits(root: Path) -> list[Limit]:
    """Return every memory limit of our own cgroup and those around it, in version 1 and 2 of
    cgroups.

    Children of the gateway are in its cgroup. Inside a container the path that the kernel names
    may not exist, its limit then stands at the top of what is mounted (cgroup_namespaces(7)).
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found: list[Limit] = []
    mounted = root / "sys/fs/cgroup"
    for line in lines:
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0":
            # Above memory.high the kernel slows everybody in the group down to reclaim.
            limits = ("memory.max", "memory.high")
            found += _limits(mounted, path, limits, "memory.current", "")
        elif "memory" in controllers.split(","):
            one = ("memory.limit_in_bytes",)
            found += _limits(mounted / "memory", path, one, "memory.usage_in_bytes", "total_")
    return found


def _limits(
    mounted: Path, path: str, names: Iterable[str], used: str, prefix: str
) -> Iterator[Limit]:
    inside = PurePosixPath(path.lstrip("/"))
    for folder in (inside, *inside.parents):
        for name in names:
            with contextlib.suppress(OSError, ValueError):  # ValueError: "max", there is none
                limit = int((mounted / folder / name).read_text())
                free = None
                with contextlib.suppress(OSError, ValueError):
                    taken = int((mounted / folder / used).read_text())
                    cached = _file_cache((mounted / folder / "memory.stat").read_text(), prefix)
                    free = max(limit - taken + cached, 0)
                yield Limit(limit, free)


def _file_cache(statistics: str, prefix: str) -> int:
    """Return bytes of files that the kernel would let go of (memory.stat)."""
    pattern = rf"^{prefix}(?:in)?active_file (\d+)$"
    return sum(map(int, re.findall(pattern, statistics, re.MULTILINE)))
