"""One child process in its own process group: started, read from, stopped, and always reaped.

The group matters: llama-server may be a wrapper script with children of its own, so signals go
to all of it, and what is left of it after its leader has gone is killed too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from gateway import open_files
from gateway.backends.logring import LogRing
from gateway.private_files import make_folder, write_private
from gateway.tasks import cancel_and_wait, spawn

_log = logging.getLogger(__name__)
_LAUNCHER = Path(__file__).with_name("launch.py")

#: The variable that marks a child and all of its descendants, whatever their parents are by now.
#: Its value is different at each start.
MARK = "LLM_GATEWAY_CHILD"
#: Seconds within which leftovers of a dead gateway must be gone after SIGKILL.
_LEFTOVERS_GONE = 5.0


def launcher() -> tuple[str, ...]:
    """Return what comes before a program that is to end with the gateway, however that ends."""
    if sys.platform != "linux":
        return ()
    parent, files = str(os.getpid()), str(open_files.INHERITED)
    return (sys.executable, "-I", "-S", str(_LAUNCHER), parent, files)


class Child:
    """A running (or ended) child. Made by :func:`start`."""

    def __init__(
        self, process: asyncio.subprocess.Process, log: LogRing, name: str, mark: str
    ) -> None:
        self._process = process
        self.log = log
        self.name = name
        self.mark = mark
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
        # Its children die with it. As long as one of them lives, the group keeps its id;
        # an empty one's was given up an instant ago, and pids are not used again so soon.
        self._signal(signal.SIGKILL)
        if self._pump is not None:
            # The pipe ends when its last holder has gone; one that left the group may hold on.
            done, _ = await asyncio.wait([self._pump], timeout=0.5)
            if not done:
                await cancel_and_wait(self._pump)
        self.log.close_line()
        return status

    async def stop(self, grace: float) -> int:
        """Send SIGTERM to the group, and SIGKILL after ``grace`` seconds. Returns the exit status.

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
        """Send SIGKILL to the group, without waiting."""
        if not self._exit.done():
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


async def start(argv: tuple[str, ...], env: Mapping[str, str], *, log: LogRing, name: str) -> Child:
    """Start ``argv`` in a session (hence group) of its own, its output going into ``log``.

    On Linux the kernel kills the child if the gateway dies unexpectedly. Raises ``OSError`` if the
    program can't be started at all. If this is cancelled, no process is left.
    """
    starting = spawn(_start(argv, env, log, name), name=f"start {name}")
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await asyncio.wait([starting])  # one that is only half there could not be waited for
        if not starting.cancelled() and starting.exception() is None:
            child = starting.result()
            child.kill()
            await child.wait()
        raise


async def _start(argv: tuple[str, ...], env: Mapping[str, str], log: LogRing, name: str) -> Child:
    argv = (*launcher(), *argv)
    mark = secrets.token_hex(8)
    reader, writer = os.pipe()
    output = os.fdopen(reader, "rb", buffering=0)
    try:
        # Our own pipe rather than asyncio's: a grandchild that keeps it open must not delay
        # the news that the child has exited.
        process = await asyncio.create_subprocess_exec(
            *argv,
            env={**env, MARK: mark},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            start_new_session=True,
        )
    except BaseException:
        output.close()
        raise
    finally:
        os.close(writer)
    child = Child(process, log, name, mark)
    child._pump = spawn(_pump(output, log), name=f"log of {name} ({child.pid})")
    return child


async def _pump(output: FileIO, log: LogRing) -> None:
    loop = asyncio.get_running_loop()
    transport, reader = await loop.connect_read_pipe(lambda: _Output(log), output)
    try:
        await reader.ended.wait()
    finally:
        transport.close()


class _Output(asyncio.Protocol):
    """Takes what a child writes as soon as the loop sees it, by no task: what it wrote about a
    request is in the log before the answer's end, which it wrote later, has reached anybody.
    """

    def __init__(self, log: LogRing) -> None:
        self._log = log
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self._log.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()


# --- children of a gateway that died -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Identity:
    """An identity that tells one process from a later one with the same pid."""

    pid: int
    started: int  # clock ticks after boot, /proc/PID/stat field 22 (proc(5))
    boot: str


@dataclass(frozen=True, slots=True)
class _ChildRecord:
    """The record of a child that a gateway noted."""

    identity: Identity
    mark: str
    name: str

    @classmethod
    def parse(cls, text: str) -> _ChildRecord:
        """Parse a record. Raises ``ValueError``, ``KeyError`` or ``TypeError`` if ``text`` is
        none.
        """
        data = json.loads(text)
        identity = Identity(int(data["pid"]), int(data["started"]), str(data["boot"]))
        return cls(identity, str(data["mark"]), str(data["name"]))


class Records:
    """A file for each living child, so that the next gateway can end what this one left behind.

    The parent-death signal makes that rare: a wrapper script that starts llama-server as *its*
    child is killed, and llama-server is not. All methods touch the disk: call them in a thread.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, child: Child) -> None:
        """Note that ``child`` is ours."""
        if (identity := identify(child.pid)) is None:
            return
        make_folder(self._folder)
        record = {"pid": child.pid, "started": identity.started, "boot": identity.boot}
        record |= {"mark": child.mark, "name": child.name}
        write_private(self._folder / f"{child.pid}.json", json.dumps(record))

    def remove(self, child: Child) -> None:
        """Remove the record of ``child``, which was reaped."""
        (self._folder / f"{child.pid}.json").unlink(missing_ok=True)

    def reap_leftovers(self) -> list[str]:
        """Kill every recorded process that is still the same one, its group and its offspring.

        Returns the names of what was killed, when it is gone (or after 5 s). A pid that
        meanwhile belongs to somebody else is left alone: a process must have the start time in
        its record, or the mark in its environment.
        """
        records = dict(self._read())
        killed: set[str] = set()
        deadline = time.monotonic() + _LEFTOVERS_GONE
        # In rounds, because one that is just forking may leave another behind.
        while (alive := _still_there(records.values())) and time.monotonic() < deadline:
            for record, pids in alive.items():
                killed.add(record.name)
                if record.identity.pid in pids:
                    _kill(os.killpg, record.identity.pid)
                for pid in pids:
                    _kill(os.kill, pid)
            time.sleep(0.02)
        for file in records:
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
        return sorted(killed)

    def _read(self) -> Iterator[tuple[Path, _ChildRecord]]:
        for file in sorted(self._folder.glob("*.json")):
            try:
                yield file, _ChildRecord.parse(file.read_text())
            except (OSError, ValueError, KeyError, TypeError) as error:
                _log.warning("ignoring the child record %s: %s", file.name, error)
                with contextlib.suppress(OSError):
                    file.unlink()


def _still_there(records: Iterable[_ChildRecord]) -> dict[_ChildRecord, set[int]]:
    """Return the living processes of each record that has any."""
    found = defaultdict(set)
    if by_mark := {record.mark: record for record in records}:
        for pid, mark in _marked():
            if mark in by_mark:
                found[by_mark[mark]].add(pid)
    for record in by_mark.values():
        if identify(record.identity.pid) == record.identity:
            found[record].add(record.identity.pid)
    return found


def _marked() -> Iterator[tuple[int, str]]:
    """Yield every living process with a mark in its environment, as far as we may
    look (proc(5)).
    """
    prefix = f"{MARK}=".encode()
    for folder in Path("/proc").glob("[1-9]*"):
        with contextlib.suppress(OSError):
            for variable in (folder / "environ").read_bytes().split(b"\0"):
                if variable.startswith(prefix):
                    yield int(folder.name), variable.removeprefix(prefix).decode("ascii", "replace")


def _kill(how: Callable[[int, int], None], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        how(number, signal.SIGKILL)


def identify(pid: int) -> Identity | None:
    """Return the identity of a living process, or ``None`` (also where there is no /proc)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()  # the name before may hold anything
    if fields[0] == "Z":
        return None
    return Identity(pid, int(fields[19]), boot)
