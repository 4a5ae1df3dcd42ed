"""Machines of their own on this one: a PID, network and mount namespace each, joined by a bridge.

The bridge is in a network namespace too, which is this process's from :func:`leave_the_network` on:
nothing of it reaches the machine's own network, and all of it is gone when this process is.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

_CLONE_NEWNET = 0x40000000  # <linux/sched.h>
_BRIDGE = "switch"
#: The address of this process among the machines.
BRIDGE = "10.88.0.1"
#: What is process 1 there: it only waits for orphans.
_INIT = """
import os, signal
signal.signal(signal.SIGCHLD, lambda *_: None)
print("up", flush=True)
while True:
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        signal.pause()
"""
#: Its folders for what only it sees; a program is told of them.
_SETUP = """
mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /dev/shm && mkdir -m 700 /run/user /run/tmp &&
hostname "$1" && exec "$2" -I -S -c "$3"
"""
_HOME = {"XDG_RUNTIME_DIR": "/run/user", "TMPDIR": "/run/tmp"}


def leave_the_network() -> None:
    """Give this process, and what it starts, a network of its own with a bridge in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "a network namespace needs root")
    _ip("link", "set", "lo", "up")
    # With an address of its own: else it has that of one of its cables, and another one when that
    # is unplugged, so that nothing of the machines reaches us until they ask for it again.
    _ip("link", "add", _BRIDGE, "address", "02:00:00:00:00:01", "type", "bridge")
    _ip("address", "add", f"{BRIDGE}/24", "dev", _BRIDGE)
    _ip("link", "set", _BRIDGE, "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Box:
    """A machine called ``name``, at ``address``. It runs from :meth:`boot` to :meth:`kill`."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self._init: subprocess.Popen[str] | None = None
        self._pid = 0  # of its process 1, as it is called out here
        self.space = ""

    def boot(self) -> None:
        """Switch it on. Nothing runs there yet."""
        assert self._init is None
        self._init = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL"),  # it ends with this process
                *("unshare", "--net", "--pid", "--mount", "--uts", "--fork", "--mount-proc"),
                *("--kill-child=SIGKILL", "sh", "-c", _SETUP, "sh"),
                *(self.name, sys.executable, _INIT),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._init.stdout is not None
        assert self._init.stdout.readline() == "up\n"
        self._pid = int(
            Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text().split()[0]
        )
        self.space = space_of(self._pid)
        cable = f"to-{self.name}"
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(self._pid))
        _ip("link", "set", cable, "master", _BRIDGE, "up")
        for command in (
            ("ip", "address", "add", f"{self.address}/24", "dev", "eth0"),
            ("ip", "link", "set", "eth0", "up"),
            ("ip", "link", "set", "lo", "up"),
        ):
            self.run(*command)

    @property
    def on(self) -> bool:
        return self._init is not None

    def _inside(self, *command: str) -> list[str]:
        spaces = ("--net", "--pid", "--mount", "--uts")
        return ["nsenter", "--target", str(self._pid), *spaces, "--", *command]

    def run(self, *command: str) -> str:
        """What a command there prints, which must succeed."""
        done = subprocess.run(self._inside(*command), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{self.name}: {command}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(
        self, *command: str, log: IO[str], environ: Mapping[str, str]
    ) -> subprocess.Popen[str]:
        """Start a program there, which writes to ``log``."""
        return subprocess.Popen(
            self._inside(*command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            text=True,
            env={**environ, **_HOME},
        )

    # --- what happens to it --------------------------------------------------------------------

    def unplug(self) -> None:
        """From now on nothing comes through, either way, and nobody is told."""
        for chain in ("INPUT", "OUTPUT"):
            self.run("iptables", "-w", "-I", chain, "!", "-i" if chain == "INPUT" else "-o", "lo",
                     "-j", "DROP")  # fmt: skip

    def plug_in(self) -> None:
        """What was dropped comes through again."""
        self.run("iptables", "-w", "-F")

    def kill(self) -> None:
        """Kill all that runs there, at once; its kernel closes what they had open."""
        if self._init is None:
            return
        os.kill(self._pid, signal.SIGKILL)  # the kernel ends all others of the namespace with it
        self._init.wait(10)
        self._init.stdout.close()
        self._init = None
        subprocess.run(
            ["ip", "link", "delete", f"to-{self.name}"], check=False, capture_output=True
        )

    def cut_power(self) -> None:
        """The same, but nobody hears of it."""
        self.unplug()
        self.kill()

    # --- what runs there -----------------------------------------------------------------------

    def processes(self, words: str) -> list[int]:
        """The processes there whose command line has ``words``, as they are called out here."""
        return [p for p in processes(words) if space_of(p) == self.space]

    def kill_process(self, words: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the processes there whose command line has ``words``: at least one."""
        found = self.processes(words)
        assert found, f"{self.name} has no {words}"
        for pid in found:
            os.kill(pid, number)


def space_of(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""


def processes(words: str) -> list[int]:
    """Every living process of this machine whose command line has ``words``."""
    found = []
    for folder in Path("/proc").glob("[1-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if words in line and state not in "ZX":
            found.append(int(folder.name))
    return found
