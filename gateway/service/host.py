"""What the machine has that the service can use: its systemd, its GPUs, its user namespaces.

Everything blocks: it is for the command line.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: A folder that exists if systemd has booted the machine (sd_booted(3)).
_BOOTED: Final = Path("/run/systemd/system")
_DEVICES: Final = Path("/sys/bus/pci/devices")
_GPU_GROUPS: Final = ("video", "render")
#: The version of systemd that has ``Type=notify-reload`` (systemd.service(5)).
_NOTIFY_RELOAD: Final = 253
#: The exit status of a program for which systemd couldn't set up its users (systemd.exec(5)).
_EXIT_USER: Final = 217


def is_booted_by_systemd() -> bool:
    """Return whether systemd starts the services of this machine."""
    return _BOOTED.is_dir()


def knows_notify_reload() -> bool:
    """Return whether this systemd waits until a reload has ended (``Type=notify-reload``)."""
    done = _run("systemctl", "--version")
    found = re.match(r"systemd (\d+)", done.stdout) if done is not None else None
    return found is not None and int(found[1]) >= _NOTIFY_RELOAD


def has_user_namespaces() -> bool:
    """Return whether ``PrivateUsers=yes`` works, by having systemd start a program with it.

    It doesn't where ``user.max_user_namespaces`` is 0, and in some containers. The service would
    not start then, rather than start without. Where it can't be tried, the answer is yes.
    """
    done = _run(
        "systemd-run", "--quiet", "--wait", "--collect", "--property=PrivateUsers=yes", "true"
    )
    return done is None or done.returncode != _EXIT_USER


def gpu_groups() -> tuple[str, ...]:
    """Return the groups of this machine that the devices of GPUs belong to."""
    return tuple(name for name in _GPU_GROUPS if _has_group(name))


def gpu_vendors() -> Iterator[str]:
    """Yield the PCI vendors of display controllers (class 03), like ``0x10de``."""
    for device in _DEVICES.glob("*"):
        try:
            if (device / "class").read_text().startswith("0x03"):
                yield (device / "vendor").read_text().strip()
        except OSError:
            continue


def _has_group(name: str) -> bool:
    import grp

    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _run(*command: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
