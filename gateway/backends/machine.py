"""Where models live on this machine: on its GPUs if their llama-server can use any, else in RAM.

Looked at before each load, since others use this machine too: what a desktop or another program
has taken meanwhile is not free. Everything here blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.backends.devices import Device, amd_devices, listed_devices, nvidia_devices
from gateway.backends.ram import ram_device


@dataclass(frozen=True, slots=True)
class Machine:
    """Its devices as they were when it was looked at. ``source`` is for the log."""

    devices: tuple[Device, ...]
    source: str
    gpu: bool = False
    named: bool = False  # by names that --device takes
    ram: Device | None = None  # beside GPUs

    @property
    def total(self) -> int:
        """Bytes of all devices."""
        return sum(device.total for device in self.devices)

    @property
    def budget(self) -> int:
        """Bytes that all models together may take."""
        return sum(device.budget for device in self.devices)


def read_machine(
    program: Sequence[str], environ: Mapping[str, str], *, root: Path = Path("/")
) -> Machine:
    """What there is for the llama-server ``program``, and what is free of it, at this moment."""
    ram = ram_device(root)
    gpus = listed_devices(program, environ)
    if gpus is not None:
        source, named = "llama-server --list-devices", True
    else:
        gpus, source, named = nvidia_devices(), "NVML", False
        if not gpus:
            gpus, source = amd_devices(root), "amdgpu"
    if not gpus:
        return Machine((ram,), ram.description)
    return Machine(tuple(gpus), f"{source}: {len(gpus)} GPU(s)", True, named, ram)
