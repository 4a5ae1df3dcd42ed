"""The devices for models on this machine: its GPUs if llama-server can use any, else RAM.

Looked at before each load, since others use this machine too: what a desktop or another program
has taken meanwhile is not free. Everything here blocks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.backends.devices import (
    Device,
    NotTold,
    amd_devices,
    ask_devices,
    listed_devices,
    nvidia_devices,
)
from gateway.backends.ram import ram_device

#: Seconds before a llama-server that didn't answer --list-devices is asked again.
_QUIET = 600.0


@dataclass(frozen=True, slots=True)
class Machine:
    """The devices of a machine as they were when it was looked at. ``source`` is for the log."""

    devices: tuple[Device, ...]
    source: str
    gpu: bool = False
    named: bool = False  # by names that --device takes
    ram: Device | None = None  # beside GPUs

    @property
    def total(self) -> int:
        """The bytes of all devices."""
        return sum(device.total for device in self.devices)

    @property
    def budget(self) -> int:
        """The bytes that all models together may take."""
        return sum(device.budget for device in self.devices)


def read_machine(
    program: Sequence[str], environ: Mapping[str, str], *, root: Path = Path("/")
) -> Machine:
    """Return what there is for the llama-server ``program``, and what is free of it, at this
    moment.
    """
    return _machine(listed_devices(program, environ), root)


class MachineReader:
    """A reader of the machine that does not take a failed look for a GPU that is gone."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._named_by: tuple[str, ...] | None = None  # the program that has listed GPUs before
        self._quiet_until = 0.0

    def read(self, program: Sequence[str], environ: Mapping[str, str]) -> Machine:
        """Do the same as :func:`read_machine`, but raise :class:`NotTold` if ``program`` fails to
        list GPUs that it listed before: it is unlikely that all are gone.
        """
        gpus = None
        try:
            if time.monotonic() < self._quiet_until:
                raise NotTold(f"{program[0]} did not answer to --list-devices a while ago")
            if program:
                gpus = ask_devices(program, environ)
        except NotTold as error:
            if error.silent:
                self._quiet_until = time.monotonic() + _QUIET
            if self._named_by == tuple(program):
                raise
        self._named_by = tuple(program) if gpus else None
        return _machine(gpus, self._root)


def _machine(gpus: list[Device] | None, root: Path) -> Machine:
    """Return the machine. ``gpus``: as llama-server lists them, ``None`` if it doesn't."""
    ram = ram_device(root)
    if gpus is not None:
        source, named = "llama-server --list-devices", True
    else:
        gpus, source, named = nvidia_devices(), "NVML", False
        if not gpus:
            gpus, source = amd_devices(root), "amdgpu"
    if not gpus:
        return Machine((ram,), ram.description)
    devices = tuple(_with_file_cache(device, ram) for device in gpus)
    return Machine(devices, f"{source}: {len(gpus)} GPU(s)", True, named, ram)


def _with_file_cache(device: Device, ram: Device) -> Device:
    """Return a GPU that works in all of the RAM (NVIDIA Jetson, DGX Spark): drivers do not count as
    free what the kernel would let go of, which after a few loads of models is most of it.
    """
    whole = 0.9 * ram.total <= device.total <= 1.01 * ram.total
    if device.free is None or ram.free is None or not whole:
        return device
    return replace(device, free=max(device.free, min(ram.free, device.total)))
