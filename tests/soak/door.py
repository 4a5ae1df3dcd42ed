"""A gateway under test: a process of its own behind a socket that outlives it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.tasks import cancel_and_wait, spawn
from gateway.tls.selfsigned import self_signed
from tests.harness import project, tied_with
from tests.soak.asking import MODELS, PERSONALITIES, SECRET, SWAPPED_IN
from tests.soak.client import Answer, Connection, request
from tests.soak.log_watch import LogWatch
from tests.soak.measures import descendants, naming
from tests.soak.observed import TASKS
from tests.soak.tally import Tally

#: Seconds that a gateway may take to end: ``shutdown_timeout``, its backends' grace, and some.
_ENDS_WITHIN: Final = 60.0
_CHILD: Final = Path(__file__).with_name("child.py")


@dataclass(frozen=True, slots=True)
class Kind:
    """What a door is like. A gateway that never restarts shows whether memory grows."""

    name: str
    tls: bool
    restarts: bool


KINDS: Final = (
    Kind("steady", tls=True, restarts=False),
    Kind("plain", tls=False, restarts=True),
    Kind("tls", tls=True, restarts=True),
)


class DiedAtStart(Exception):
    """A gateway ended before it answered anybody; the message has the end of its log."""


class Door:
    """The socket, the folder and the settings of one gateway, and the process of now."""

    def __init__(self, kind: Kind, folder: Path, tally: Tally) -> None:
        self.chance = random.Random(kind.name)
        self.kind = kind
        self.name = kind.name
        self.tally = tally
        self.folder = folder / kind.name
        #: Held by faults of which there can be one at a time.
        self.alone = asyncio.Lock()
        #: The keys of ordinary clients, of those that hang up, and of the administrator.
        self.key = self.leaving_key = self.admin_key = ""
        self.generations = 0
        self.config = self._write_project()
        self.trust: ssl.SSLContext | None = None
        if kind.tls:
            self.trust = ssl.create_default_context(
                cafile=str(self.certificates / "local-ca-crt.pem")
            )
        self._socket = self._listening()
        self.port: int = self._socket.getsockname()[1]
        self._process: subprocess.Popen[str] = None
        self.log: LogWatch

    @property
    def certificates(self) -> Path:
        """Where the certificate is."""
        return self.folder / "ssl"

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"

    @property
    def pid(self) -> int:
        """The gateway's process."""
        return self._process.pid

    def _write_project(self) -> Path:
        program = self.folder.parent / "llama-server"
        if not program.exists():
            program.write_text(f'#!/bin/sh\nexec {sys.executable} {_CHILD} "$@"\n')
            program.chmod(0o700)
            (self.folder.parent / "model.gguf").touch()
        tls: dict[str, Any] = {"enabled": self.kind.tls}
        if self.kind.tls:
            made = self_signed(["127.0.0.1"], self.certificates)
            tls |= {"private_key": str(made.private_key), "certificate": str(made.certificate)}
        config = project(
            self.folder,
            self.models(),
            llama_server=str(program),
            tls=tls,
            scheduler={"max_loaded": len(MODELS)},
            accounting={"max_requests": 20_000},
        )
        for name in ("run", "tmp"):
            (self.folder / name).mkdir(mode=0o700)
        return config

    def models(self, **more: Any) -> dict[str, Any]:
        """The entries of models.json; ``more`` is put into each."""
        prompts = {name: f"{SECRET} {word}" for name, word in PERSONALITIES.items()}
        entry = {
            "params": {"model": str(self.folder.parent / "model.gguf")},
            "personalities": prompts,
            "parallel": 8,
            **more,
        }
        return dict.fromkeys((*MODELS, SWAPPED_IN), entry)

    @staticmethod
    def _listening() -> socket.socket:
        """A listening socket with a number in nobody's way."""
        with socket.create_server(("127.0.0.1", 0), backlog=4096) as first:
            return socket.socket(fileno=fcntl.fcntl(first.fileno(), fcntl.F_DUPFD_CLOEXEC, 100))

    # --- the process -----------------------------------------------------------------------

    async def start(self) -> None:
        """Start a gateway, and return when it answers who has a key."""
        inherited = [("https" if self.kind.tls else "http", self._socket)]
        environ = {k: v for k, v in os.environ.items() if not k.startswith("LLM_GATEWAY_")}
        environ |= {"XDG_RUNTIME_DIR": str(self.folder / "run"), "TMPDIR": str(self.folder / "tmp")}
        environ |= {TASKS: str(self.folder / "tasks"), "XDG_DATA_HOME": str(self.folder / "share")}
        command = (sys.executable, "-m", "tests.soak.observed", "serve")
        with (self.folder / "stdout").open("w") as out:
            self._process = subprocess.Popen(
                [*tied_with(inherited), *command, "--config", str(self.config)],
                pass_fds=[self._socket.fileno()],
                env=environ,
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
            )
        self.generations += 1
        assert self._process.stderr
        self.log = LogWatch(self._process.stderr, self._report, SECRET)
        if not self.admin_key:
            self.admin_key = await self._first_key()
            self.key = (await self.new_key("ordinary"))[1]
            self.leaving_key = (await self.new_key("leaving"))[1]
        await self._answering()

    async def _answering(self) -> None:
        """Return when the gateway answers its administrator. Raises if it ends before that."""
        asked = spawn(self.admin("GET", "/admin/system"), name=f"ask {self.name}")
        while not asked.done():
            if self._process.poll() is not None:
                await cancel_and_wait(asked)
                await asyncio.to_thread(self.log.end)
                told = "".join(self.log.last)
                raise DiedAtStart(f"it ended with status {self._process.returncode}: {told}")
            await asyncio.wait((asked,), timeout=0.2)
        assert (await asked).status == 200

    async def _first_key(self) -> str:
        """The administrator's key, which the first start prints."""
        async with asyncio.timeout(60):
            while not (found := re.search(r"\s(llmgw_\w+)", (self.folder / "stdout").read_text())):
                await asyncio.sleep(0.05)
        return found[1]

    async def new_key(self, name: str) -> tuple[str, str]:
        """Make a key; its id, and the key itself."""
        answer = await self.admin("POST", "/admin/keys", {"name": name})
        assert answer.status in (200, 201), answer.text
        made = answer.json()
        return made["id"], made["key"]

    def _report(self, what: str, detail: str) -> None:
        self.tally.breach(f"{self.name}: {what}", detail)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the gateway."""
        self._process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the gateway; breaches are an exit status, and a process that it leaves behind."""
        below = descendants(self.pid)
        self._process.send_signal(number)
        try:
            status = await asyncio.to_thread(self._process.wait, _ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self._report("it did not end", "".join(self.log.last))
            self._process.kill()
            status = self._process.wait()
        await asyncio.to_thread(self.log.end)
        self.tally.told.update(self.log.told)
        if status != (0 if number is signal.SIGTERM else -number):
            self._report(f"it ended with status {status}", "".join(self.log.last))
        await self._gone(below)

    async def _gone(self, below: set[int]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                while below & naming(str(self.folder)):
                    await asyncio.sleep(0.05)
                return
        self._report("processes are left", f"{below & naming(str(self.folder))}")

    def close(self) -> None:
        """Kill the process if it runs, and close the socket."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._socket.close()

    # --- what its administrator asks -------------------------------------------------------

    async def ask(self, data: bytes) -> Answer:
        """Ask by a connection of its own. Raises OSError if there is none."""
        connection = await Connection.open(self.port, self.trust)
        try:
            return await connection.ask(data)
        finally:
            connection.abort()

    async def admin(self, method: str, path: str, body: Any = None) -> Answer:
        """Ask as the administrator."""
        sent = b"" if body is None else json.dumps(body).encode()
        return await self.ask(request(method, path, self.admin_key, sent))

    async def child(self, model: str) -> int | None:
        """The process of ``model``, if it is loaded."""
        answer = (await self.admin("GET", "/admin/models")).json()
        pids = {each["name"]: each["pid"] for each in answer["models"] if each["state"] == "ready"}
        return pids.get(model)

    async def tasks(self) -> list[str]:
        """The names of the gateway's tasks, without their numbers."""
        file = self.folder / "tasks"
        file.unlink(missing_ok=True)
        self.send_signal(signal.SIGUSR2)
        async with asyncio.timeout(20):
            while not file.exists():
                await asyncio.sleep(0.01)
        return sorted(re.sub(r"\d+", "#", name) for name in file.read_text().splitlines())


@contextlib.contextmanager
def doors(kinds: Iterable[Kind], folder: Path, tally: Tally) -> Iterator[list[Door]]:
    """One of each of ``kinds``, not yet started."""
    made = [Door(kind, folder, tally) for kind in kinds]
    try:
        yield made
    finally:
        for door in made:
            door.close()
