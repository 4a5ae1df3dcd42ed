"""A machine with a newer systemd than this one's: Debian 13 has 257, and waits for reloads.

Its system is downloaded by debootstrap (a minute, 150 MB), or is the one in the folder that
``DEBIAN_ROOT`` names, made by the same command; neither is changed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.conftest import PROGRAM
from tests.service.machine import Machine, install, interpreter_files, machine, why_not
from tests.service.test_install import GATEWAY, key_in

#: What is in it besides the least that Debian has: bundled llama-servers need libgomp1.
PACKAGES = (
    "systemd systemd-sysv dbus curl iproute2 procps libgomp1 libsqlite3-0 libssl3t64 libffi8 "
    "libexpat1"
)
# Over plain HTTP: debootstrap checks the archive by its signature.
MIRROR = "http://deb.debian.org/debian"


def _debian(folder: Path) -> Path:
    if named := os.environ.get("DEBIAN_ROOT"):
        return Path(named)
    if shutil.which("debootstrap") is None:
        pytest.skip(
            "debootstrap is not installed (apt: debootstrap), and DEBIAN_ROOT names nothing"
        )
    root = folder / "trixie"
    include = f"--include={PACKAGES.replace(' ', ',')}"
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", include, "trixie", root, MIRROR],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "Failed getting release file" in made.stdout + made.stderr:
        pytest.skip(f"{MIRROR} can't be reached")
    assert made.returncode == 0, made.stdout[-1000:] + made.stderr[-1000:]
    return root


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One with the service in it."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("debian")
    shared = {install(folder, PROGRAM): PROGRAM, **interpreter_files()}
    with machine(folder, read_only=shared, root=_debian(folder)) as booted:
        booted.key = key_in(booted.run(GATEWAY, "service", "install").stdout)
        yield booted
