"""Whether the driver of a GPU is here, whatever uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

#: Files that show a GPU's driver.
_DRIVERS: Final = {
    "the NVIDIA driver": "/proc/driver/nvidia/version",
    "the AMD driver (ROCm)": "/dev/kfd",
}


def driver_here() -> str | None:
    """Return whose driver is here, if there is one."""
    return next((name for name, file in _DRIVERS.items() if Path(file).exists()), None)
