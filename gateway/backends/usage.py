"""Measures the RAM and GPU memory that a child and all of its process group hold. Blocks."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from gateway.backends.devices import nvml_handles


def memory_used(group: int, *, gpu: bool) -> int | None:
    """Return bytes that the processes of a process group hold, ``None`` where that
    cannot be seen.
    """
    members = group_members(group)
    return _gpu_used(members) if gpu else _ram_used(members, Path("/"))


def memory_kept(group: int, *, gpu: bool) -> int | None:
    """Return the same without what the kernel would let go of for others: files that are only
    mapped.
    """
    members = group_members(group)
    return _gpu_used(members) if gpu else _ram_kept(members, Path("/"))


def group_members(group: int) -> set[int]:
    """Return the process ids of a group, by asking the kernel about each process (getpgid(2))."""
    members = set()
    with contextlib.suppress(FileNotFoundError):  # there is no /proc
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):  # it has just ended
                    if os.getpgid(int(entry.name)) == group:
                        members.add(int(entry.name))
    return members


def _ram_used(members: Iterable[int], root: Path) -> int | None:
    """Return the resident set: what was allocated and touched, and the mapped weights.

    Pages shared with others count in full: with Pss, two models of one file would measure half
    of it each, and the one that stays would then take more than it was said to. The summary in
    ``status`` is a few pages off; ``smaps_rollup``, which is exact, walks every page for it.
    """
    return sum(status.get("VmRSS", 0) for status in _statuses(members, root)) or None


def _ram_kept(members: Iterable[int], root: Path) -> int | None:
    """Return what MemAvailable does not count as to be had: anonymous and shared memory, locked
    files.
    """
    kept = 0
    for status in _statuses(members, root):
        locked = min(status.get("VmLck", 0), status.get("RssFile", 0))
        kept += status.get("RssAnon", 0) + status.get("RssShmem", 0) + locked
    return kept or None


def _statuses(members: Iterable[int], root: Path) -> list[dict[str, int]]:
    """Return the sizes in /proc/PID/status (proc(5)) of each process, in bytes."""
    found = []
    for pid in members:
        with contextlib.suppress(OSError):
            text = (root / f"proc/{pid}/status").read_text()
            sizes = re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)
            found.append({name: int(size) * 1024 for name, size in sizes})
    return found


def _gpu_used(members: set[int]) -> int | None:
    """Return what NVML says of these processes: nothing about other makers' GPUs, nor where it sees
    only the process ids of the host from inside a container.
    """
    used = 0
    for nvml, device in nvml_handles():
        with contextlib.suppress(nvml.NVMLError):
            # A process that computes and draws (Vulkan) is in both lists, with one number.
            processes = {
                process.pid: process.usedGpuMemory or 0
                for process in (
                    *nvml.nvmlDeviceGetComputeRunningProcesses(device),
                    *nvml.nvmlDeviceGetGraphicsRunningProcesses(device),
                )
            }
            used += sum(size for pid, size in processes.items() if pid in members)
    return used or None
