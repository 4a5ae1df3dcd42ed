"""Clusters on this machine, with Ray's own processes at addresses of the loopback.

Apart from the suite: Ray takes seconds for each start, and 300 MB for each node. `.ci/cluster.lock`
installs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

if importlib.util.find_spec("ray") is None:
    raise pytest.UsageError("Ray is missing: pip install --no-deps -r .ci/cluster.lock")

#: Seconds for Ray to do something, on a busy machine.
LONG = 120.0


def free_port() -> int:
    # Below 10002, where Ray's own processes begin.
    for port in range(6400, 10000):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


class Command:
    """A running `llm-gateway`, whose output can be waited for."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def until(self, words: str) -> str:
        """The next line with these words."""
        assert self.process.stdout is not None
        async with asyncio.timeout(LONG):
            while line := (await self.process.stdout.readline()).decode():
                self.lines.append(line)
                if words in line:
                    return line
        raise AssertionError(f"ended without {words!r}: {''.join(self.lines)}")

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        async with asyncio.timeout(LONG):
            return await self.process.wait()


class Cluster:
    """A head at 127.0.0.2, and nodes beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.running: list[Command] = []

    @property
    def address(self) -> str:
        return f"127.0.0.2:{self.port}"

    @property
    def token(self) -> Path:
        return self.folder / "head/cluster/token"

    async def command(self, of: str, *words: str, stdin: str = "") -> Command:
        storage = self.folder / "LLMs"
        storage.mkdir(exist_ok=True)
        environ = {
            **os.environ,
            "LLM_GATEWAY_DATA_DIR": str(self.folder / of),
            "LLM_GATEWAY_LLM_STORAGE": str(storage),
        }
        process = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).with_name("llm-gateway")), *words),
            cwd=self.folder,
            env=environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert process.stdin is not None
        process.stdin.write(stdin.encode())
        process.stdin.close()
        started = Command(process)
        self.running.append(started)
        return started

    async def head(self) -> Command:
        words = ("--host", "127.0.0.2", "--port", str(self.port))
        started = await self.command("head", "node", "head", *words)
        await started.until("The head runs.")
        await started.until("It asks for the token")
        return started

    async def join(self, name: str, address: str) -> Command:
        started = await self.command(
            *(name, "node", "join", self.address, "--name", name, "--host", address),
            *("--token-file", str(self.token)),
        )
        await started.until(f"{name} has joined")
        return started


def processes_of(folder: Path) -> list[str]:
    """Every process whose environment names a folder of this test."""
    found = []
    for process in Path("/proc").glob("[1-9]*"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200])
    return found


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    for one in reversed(made.running):
        await one.end()
    assert not processes_of(tmp_path), "something is left running"
