"""A machine with a systemd of its own (systemd-nspawn), and the gateway installed in it.

It has this machine's /usr, no network but its loopback, and everything else in memory. It wants
root, systemd-nspawn, and a Python below /usr of the version that runs the tests.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

import pytest

from tests.harness import REPOSITORY, tied, wait_until
from tests.screen import set_size

#: Where the unit expects the program.
VENV = "/opt/llm-gateway/venv"
_PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
#: Units of Debian that wait for what isn't there.
_MASKED = ("systemd-firstboot.service", "systemd-networkd-wait-online.service")
#: The namespaces of a machine.
_SPACES: Final = ("--mount", "--uts", "--ipc", "--net", "--pid")
_PATH: Final = "/usr/local/bin:/usr/sbin:/usr/bin"
#: Colours, and links (OSC 8).
_STYLES: Final = re.compile(r"\x1b\[[\d;]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")


def why_not() -> str | None:
    """Return why no machine can be had here, or ``None``."""
    if os.geteuid() != 0:
        return "a machine is root's to start"
    if shutil.which("systemd-nspawn") is None:
        return "systemd-nspawn is not installed (apt: systemd-container)"
    if _interpreter() is None:
        return f"no {_PYTHON} below /usr, which is all that the machine has of this one"
    return None


def _interpreter() -> Path | None:
    found = (Path(folder) / _PYTHON for folder in ("/usr/local/bin", "/usr/bin"))
    return next((path for path in found if path.exists()), None)


def install(folder: Path, place: str = VENV) -> Path:
    """Make the virtual environment of a machine in ``folder``: this one's packages, and ours.

    ``place``: where the machine will have it.
    """
    interpreter = _interpreter()
    assert interpreter is not None
    venv = folder / "venv"
    subprocess.run([interpreter, "-m", "venv", "--without-pip", venv], check=True)
    (packages,) = venv.glob("lib/python*/site-packages")
    shutil.copytree(
        sysconfig.get_path("purelib"), packages, copy_function=_link, dirs_exist_ok=True
    )
    for pointer in packages.glob("*llm_api_gateway*.pth"):  # to this repository
        pointer.unlink()
    skip = shutil.ignore_patterns("node_modules", "__pycache__")
    shutil.copytree(REPOSITORY / "gateway", packages / "gateway", ignore=skip, dirs_exist_ok=True)
    skeleton = packages / "gateway/skeleton"
    shutil.copytree(REPOSITORY / "systemd", skeleton / "systemd", dirs_exist_ok=True)
    command = venv / "bin/llm-gateway"
    command.write_text(
        f"#!{place}/bin/python\nimport sys\nfrom gateway.cli import main\nsys.exit(main())\n"
    )
    command.chmod(0o755)
    return venv


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _read(output: IO[bytes]) -> bytes:
    try:
        return output.read(65536)
    except OSError:  # nobody has the terminal open any more
        return b""


class Machine:
    """One that runs. Commands run in it as root."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log
        self._init = self._wait_for_init()
        self._enter = ("nsenter", f"--target={self._init}", *_SPACES)
        #: A key of the gateway that is installed there.
        self.key = ""

    def _wait_for_init(self) -> int:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        end = time.monotonic() + 20
        while time.monotonic() < end and self._process.poll() is None:
            for pid in children.read_text().split():
                if Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                    return int(pid)
            time.sleep(0.05)
        pytest.skip(f"systemd-nspawn starts no machine here: {self.log[-500:]}")

    def is_up(self) -> bool:
        """Return whether it has booted: that takes a second or two."""
        said = self.run("systemctl", "is-system-running", check=False).stdout
        return said.strip() in ("running", "degraded")

    @property
    def log(self) -> str:
        """What it has written to its console."""
        return self._log.read_text(errors="replace")

    def run(
        self, *command: str, check: bool = True, timeout: float = 240
    ) -> subprocess.CompletedProcess[str]:
        """Run ``command`` in it."""
        done = subprocess.run(
            [*self._enter, *command],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={"PATH": _PATH, "SYSTEMD_PAGER": ""},
        )
        if check and done.returncode != 0:
            pytest.fail(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def at_terminal(self, *command: str, columns: int) -> list[str]:
        """Run ``command`` in it at a terminal; the lines that it writes there, without styles."""
        end, terminal = pty.openpty()
        set_size(terminal, columns, 50)
        with os.fdopen(end, "rb", buffering=0) as output:
            with os.fdopen(terminal, "wb", buffering=0) as stream:
                process = subprocess.Popen(
                    tied(*self._enter, *command),
                    stdin=stream,
                    stdout=stream,
                    stderr=stream,
                    env={"PATH": _PATH, "TERM": "xterm-256color"},
                )
            written = b"".join(iter(lambda: _read(output), b"")).decode()
        assert process.wait() == 0, written
        return _STYLES.sub("", written).splitlines()

    def property(self, name: str, unit: str = "llm-gateway") -> str:
        """Return a property of a unit as ``systemctl show`` has it."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()

    def journal(self, unit: str) -> str:
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", unit).stdout


def interpreter_files() -> dict[Path, str]:
    """Return what a machine with another /usr needs of this one to run its Python, and where."""
    interpreter = _interpreter()
    assert interpreter is not None
    library = Path(sysconfig.get_path("stdlib", vars={"base": "/usr", "installed_base": "/usr"}))
    assert library.is_dir(), f"{interpreter} has its library elsewhere"
    return {interpreter: str(interpreter), library: str(library)}


#: Of this machine: its /usr, which is read-only, but for one folder, and nothing else.
_THIS: Final = ("--directory=/", "--volatile=yes", "--overlay=/usr/local/bin::/usr/local/bin")


@contextlib.contextmanager
def machine(
    folder: Path, *, read_only: Mapping[Path, str], root: Path | None = None
) -> Iterator[Machine]:
    """Boot one; ``read_only``: what it has of this one, and where. ``root``: of another system,
    which is not changed.
    """
    log = folder / "console"
    system = _THIS if root is None else (f"--directory={root}", "--volatile=overlay")
    command: Sequence[str] = (
        "systemd-nspawn",
        "--register=no",
        "--keep-unit",
        "--private-network",
        *system,
        "--console=pipe",
        *(f"--bind-ro={path}:{place}" for path, place in read_only.items()),
        "--boot",
        *(f"systemd.mask={unit}" for unit in _MASKED),
    )
    with log.open("wb") as console:
        process = subprocess.Popen(
            tied(*command), stdin=subprocess.DEVNULL, stdout=console, stderr=console
        )
    try:
        booted = Machine(process, log)
        wait_until(booted.is_up, 60, "the machine has booted")
        yield booted
    finally:
        process.terminate()  # it shuts down in order
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
