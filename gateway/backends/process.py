"""One child process in its own process group: started, listened to, stopped, always reaped.

The group matters: llama-server may be a wrapper script with children of its own, so signals go
to all of it, and what is left of it after its leader has gone is killed too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.backends.logring import LogRing
from gateway.tasks import cancel_and_wait, spawn

_log = logging.getLogger(__name__)
_LAUNCHER = Path(__file__).with_name("launch.py")


class Child:
    """A running (or ended) child. Made by :func:`start`."""

    def __init__(self, process: asyncio.subprocess.Process, log: LogRing, name: str) -> None:
        self._process = process
        self.log = log
        self.pid = process.pid
        self._pump: asyncio.Task[None] | None = None
        self._exit = spawn(self._reap(), name=f"reap {name} ({self.pid})")

    @property
    def returncode(self) -> int | None:
        """``None`` while it runs; negative for the signal that ended it (as subprocess has it)."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait until the process is reaped; returns its status."""
        return await asyncio.shield(self._exit)

    async def _reap(self) -> int:
        status = await self._process.wait()
        # Whoever it started dies with it. The leader has just been reaped, so the group id
        # cannot belong to anybody else yet.
        self._signal(signal.SIGKILL)
        if self._pump is not None:
            # The pipe ends when its last holder has gone; one that left the group may hold on.
            done, _ = await asyncio.wait([self._pump], timeout=0.5)
            if not done:
                await cancel_and_wait(self._pump)
        self.log.close_line()
        return status

    async def stop(self, grace: float) -> int:
        """SIGTERM to the group, SIGKILL after ``grace`` seconds; returns the exit status.

        May be called by several at once and again afterwards. Cancelling it kills at once.
        """
        if not self._exit.done():
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)  # a stopped process would never see the first one
            try:
                await asyncio.wait([self._exit], timeout=grace)
            finally:
                if not self._exit.done():
                    self._signal(signal.SIGKILL)
        return await self.wait()

    def kill(self) -> None:
        """SIGKILL to the group, without waiting."""
        if not self._exit.done():
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


async def start(argv: tuple[str, ...], env: Mapping[str, str], *, log: LogRing, name: str) -> Child:
    """Start ``argv`` in a session (hence group) of its own, its output going into ``log``.

    On Linux the child is killed by the kernel if the gateway dies without a word. Raises
    ``OSError`` if the program cannot be started at all.
    """
    if sys.platform == "linux":
        argv = (sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), *argv)
    reader, writer = os.pipe()
    try:
        # Our own pipe rather than asyncio's: a grandchild that keeps it open must not delay
        # the news that the child has exited.
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=dict(env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            start_new_session=True,
        )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    child = Child(process, log, name)
    child._pump = spawn(_pump(reader, log), name=f"log of {name} ({child.pid})")
    return child


async def _pump(fd: int, log: LogRing) -> None:
    loop = asyncio.get_running_loop()
    stream = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(fd, "rb", buffering=0)
    )
    try:
        while data := await stream.read(65536):
            log.feed(data)
    finally:
        transport.close()


# --- children of a gateway that died -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells one process from a later one with the same pid."""

    pid: int
    started: int  # clock ticks after boot, /proc/PID/stat field 22 (proc(5))
    boot: str


class Records:
    """A file for each living child, so that the next gateway can end what this one left.

    The parent-death signal makes that rare (a wrapper that starts llama-server as *its* child
    escapes it). All methods touch the disk: call them in a thread.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, pid: int, name: str) -> None:
        """Note that ``pid`` is ours."""
        if (identity := identify(pid)) is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        record = {"pid": pid, "started": identity.started, "boot": identity.boot, "name": name}
        (self._folder / f"{pid}.json").write_text(json.dumps(record))

    def remove(self, pid: int) -> None:
        """The child is reaped."""
        (self._folder / f"{pid}.json").unlink(missing_ok=True)

    def reap_leftovers(self) -> list[str]:
        """Kill every recorded process (and its group) that is still the same one.

        Returns the names of what was killed. A pid that meanwhile belongs to somebody else is
        left alone.
        """
        killed = []
        for file in sorted(self._folder.glob("*.json")):
            try:
                record = json.loads(file.read_text())
                known = Identity(int(record["pid"]), int(record["started"]), str(record["boot"]))
                if identify(known.pid) == known:
                    os.killpg(known.pid, signal.SIGKILL)
                    killed.append(str(record.get("name", known.pid)))
            except (ValueError, KeyError, TypeError, ProcessLookupError, PermissionError) as error:
                _log.warning("ignoring the child record %s: %s", file.name, error)
            file.unlink(missing_ok=True)
        return killed


def identify(pid: int) -> Identity | None:
    """The identity of a living process, or ``None`` (also where there is no /proc)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()  # the name before may hold anything
    if fields[0] == "Z":
        return None
    return Identity(pid, int(fields[19]), boot)
