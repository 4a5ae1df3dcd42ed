"""Machines for the tests of the service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.machine import Machine, install, machine

#: Where the program is that installs the service.
PROGRAM = "/mnt/program"


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[tuple[Machine, Path]]:
    """A machine without the service, and the environment at :data:`PROGRAM` that can install it."""
    venv = install(tmp_path, PROGRAM)
    # Its /etc is empty: the user's service manager needs these.
    shared = {Path(f"/etc/{name}"): f"/etc/{name}" for name in ("pam.d", "security")}
    with machine(tmp_path, read_only={venv: PROGRAM, **shared}) as booted:
        yield booted, venv
