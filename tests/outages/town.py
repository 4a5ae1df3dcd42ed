"""A cluster of four machines: the head, the gateway's, and two nodes on which models run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp

from gateway.backends.command import find_program
from tests.harness import project
from tests.outages.asked import LONG, NODES, Asked
from tests.outages.boxes import Box, processes, space_of
from tests.scripted import DEMO_GGUF, FAKE
from tests.vulkan_build import REAL, RPC_SERVER, RUNS

_BIN = Path(sys.executable).parent
#: Seconds for a machine to start, on a very busy one.
_START = 240.0
#: The model of a gateway that never comes back.
LEFT = "left"
_PORT = 6379
_WATCH = "reservations"
_RPC_SERVER = "ggml-rpc-server"


def scripted(folder: Path, nodes: tuple[str, ...] = NODES, **switches: Any) -> Any:
    """A models.json entry of the scripted llama-server; see tests/fake_llama_server.py."""
    gguf = folder / "LLMs/fake.gguf"
    gguf.touch()
    env = {f"FAKE_{key.upper()}": str(value) for key, value in switches.items()}
    env["SCRIPTED"] = "1"
    return {"params": {"model": str(gguf)}, "nodes": list(nodes), "env": env, "memory": "64MiB"}


def demo() -> dict[str, Any]:
    """The entry of the demo model, run by the real llama-server."""
    return {"params": {"model": DEMO_GGUF, "ctx_size": 512}, "nodes": list(NODES)}


def spanning(left: int, *nodes: str) -> dict[str, Any]:
    """The entry of the demo model as one that two machines can hold, of which each has ``left``
    bytes, but none alone.
    """
    memory = f"{int(1.4 * left) >> 20}MiB"
    return {**demo(), "nodes": list(nodes), "memory": memory, "machines": 2}


class Town(Asked):
    """The four machines. ``folder`` is the disk of all of them: it outlives them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hub = Box("hub", "10.88.0.10")
        self.house = Box("house", "10.88.0.20")
        self.nodes = {"attic": Box("attic", "10.88.0.31"), "cellar": Box("cellar", "10.88.0.32")}
        self.program = folder
        self._running: list[subprocess.Popen[str]] = []
        self._key = ""
        #: What nodes call a gateway that never comes back.
        self.left = ""
        self.gateway: subprocess.Popen[str] | None = None

    @property
    def boxes(self) -> tuple[Box, ...]:
        return (self.hub, self.house, *self.nodes.values())

    # --- how they start ------------------------------------------------------------------------

    async def open(self, models: dict[str, Any]) -> None:
        self.program = self.folder / "llama-server"
        real = str(REAL) if RUNS else " ".join(find_program("auto", os.environ))
        self.program.write_text(
            f'#!/bin/sh\n[ -n "$SCRIPTED" ] && exec {FAKE} "$@"\nexec {real} "$@"\n'
        )
        self.program.chmod(0o755)
        if RUNS:
            self.program.with_name(_RPC_SERVER).symlink_to(RPC_SERVER)
        self.configure("gateway", self.house, models)
        for box in self.boxes:
            box.boot()
        await self.start_head()
        for box in (self.house, *self.nodes.values()):  # not at once: Ray gives up after 30 s
            await self.join(box)
        await self.start_gateway()
        self._key = await self.key_of_first_start("gateway", self.gateway)
        self.session = aiohttp.ClientSession(
            f"http://{self.house.address}:8080",
            headers={"Authorization": f"Bearer {self._key}"},
            timeout=aiohttp.ClientTimeout(total=LONG),
        )
        await self.up(*NODES)

    def configure(
        self, name: str, box: Box, models: dict[str, Any], *, port: int = 8080, **settings: Any
    ) -> None:
        """Write what the gateway in the folder ``name`` is to be."""
        project(
            self.folder / name,
            models,
            host=box.address,
            port=port,
            llama_server=str(self.program),
            llm_storage=str(self.folder / "LLMs"),
            cluster={"engine": "ray", "address": self.address},
            admin={"process_settings": True},
            **settings,
        )

    async def close(self) -> None:
        if hasattr(self, "session"):
            await self.session.close()
        for box in self.boxes:
            box.kill()
        for process in self._running:
            process.wait(10)

    @property
    def address(self) -> str:
        return f"{self.hub.address}:{_PORT}"

    def with_token(self, *command: str) -> tuple[str, ...]:
        """A command that may talk to Ray."""
        token = self.folder / "hub/cluster/token"
        return ("env", "RAY_AUTH_MODE=token", f"RAY_AUTH_TOKEN_PATH={token}", *command)

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _start(self, box: Box, log: str, *command: str) -> subprocess.Popen[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("LLM_GATEWAY_", "RAY_"))}
        environ = {
            **clean,
            "LLM_GATEWAY_DATA_DIR": str(self.folder / box.name),
            "LLM_GATEWAY_LLM_STORAGE": str(self.folder / "LLMs"),
            "LLM_GATEWAY_LLAMA_SERVER": str(self.program),
            "XDG_DATA_HOME": str(self.folder / "share"),
        }
        if "serve" in command[-1]:
            for name in ("DATA_DIR", "LLM_STORAGE", "LLAMA_SERVER"):
                del environ[f"LLM_GATEWAY_{name}"]
        with self._log(log).open("a") as file:
            process = box.start(*command, log=file, environ=environ)
        self._running.append(process)
        return process

    async def _says(self, log: str, words: str, after: int, process: Any) -> str:
        """The log from byte ``after`` on, as soon as it has ``words``."""
        async with asyncio.timeout(_START):
            while words not in (text := self._log(log).read_text()[after:]):
                assert process.poll() is None, text
                await asyncio.sleep(0.05)  # a file tells nobody
        return text

    def _size(self, log: str) -> int:
        return len(self.log(log))

    async def start_head(self) -> None:
        if not self.hub.on:
            self.hub.boot()
        address = ("--host", self.hub.address, "--port", str(_PORT))
        command = (str(_BIN / "llm-gateway"), "node", "head", *address)
        await self._until_it_says(self.hub, "The head runs.", *command)

    async def join(self, box: Box) -> None:
        if not box.on:
            box.boot()
        command = (
            *(str(_BIN / "llm-gateway"), "node", "join", self.address, "--name", box.name),
            *("--host", box.address, "--token-file", str(self.folder / "hub/cluster/token")),
        )
        await self._until_it_says(box, f"{box.name} has joined", *command)

    async def _until_it_says(self, box: Box, words: str, *command: str) -> None:
        for tries in (2, 1, 0):  # Ray's own patience ends where too much else runs
            after = self._size(box.name)
            process = self._start(box, box.name, *command)
            try:
                await self._says(box.name, words, after, process)
            except AssertionError:
                if not tries:
                    raise
            else:
                return

    async def start_gateway(self) -> None:
        self.gateway = await self.serve(self.house, "gateway")

    async def serve(self, box: Box, name: str) -> subprocess.Popen[str]:
        """Start the gateway in the folder ``name``."""
        after = self._size(name)
        folder = self.folder / name
        config = folder / "conf/gateway.yaml"
        command = f"cd {folder} && exec {_BIN}/llm-gateway serve --config {config}"
        process = self._start(box, name, *self.with_token("sh", "-c", command))
        await self._says(name, "listening on", after, process)
        return process

    async def key_of_first_start(self, name: str, process: Any) -> str:
        text = await self._says(name, "llmgw_", 0, process)
        found = re.search(r"\b(llmgw_\w+)", text)
        assert found is not None
        return found[1]

    def log(self, name: str) -> str:
        """What the gateway in the folder ``name`` has written."""
        return self._log(name).read_text() if self._log(name).exists() else ""

    # --- what runs where -----------------------------------------------------------------------

    async def load(self, name: str) -> Box:
        """Load a model; return its machine."""
        status, answer = await self.chat(name)
        assert status == 200, answer
        return self.nodes[(await self.model(name))["nodes"][0]]

    async def only_on(self, name: str, box: Box) -> None:
        """Wait until a model is on one machine, and on no other."""
        async with asyncio.timeout(LONG):
            while (await self.model(name))["nodes"] != [box.name]:
                await asyncio.sleep(0.2)  # /admin/models tells nobody

    async def server(self, model: str) -> None:
        """Wait until a model's llama-server runs somewhere."""
        of = LEFT if model == LEFT else ""
        await self.until(lambda: model in [name for name, _ in self.llama_servers(of)])

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LONG):
            while not condition():
                await asyncio.sleep(0.1)  # processes tell nobody

    def other(self, box: Box) -> Box:
        (other,) = set(self.nodes.values()) - {box}
        return other

    # --- what must hold after all that happens ---------------------------------------------------

    async def settled(self) -> None:
        """Wait until every llama-server anywhere is one that the gateway has, and every
        reservation is for one of them.
        """
        wrong: object = None
        try:
            async with asyncio.timeout(LONG):
                while (wrong := await self._wrong()) is not None:
                    await asyncio.sleep(0.2)  # processes and Ray tell nobody
        except TimeoutError:
            raise AssertionError(f"this is left: {wrong}") from None

    async def _wrong(self) -> object:
        models = (await self.json("GET", "/admin/models"))["models"]
        if moving := [m["name"] for m in models if m["state"] in ("starting", "stopping")]:
            return f"on the way: {moving}"
        loaded = sorted(
            (m["name"], node) for m in models for node in m["nodes"] if m["state"] == "ready"
        )
        there = sorted(self.llama_servers())
        lent = sorted(node for _, node in (Counter(loaded) - Counter(there)).elements())
        if Counter(there) - Counter(loaded) or lent != sorted(self.rpc_servers()):
            return f"{there}, rpc-servers on {self.rpc_servers()}, and the gateway has {loaded}"
        reserved = await self.reservations()
        if len(reserved) != len(loaded):
            return f"reserved {reserved}, for {loaded}"
        return None

    def llama_servers(self, of: str = "") -> list[tuple[str, str]]:
        """Every llama-server of these machines, but for what :meth:`leave` has left: its model and
        its machine. ``of``: those that this gateway has left.
        """
        found = []
        for pid, name in self._processes(" --alias "):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            model = words[words.index("--alias") + 1]
            if (model == LEFT) is bool(of):
                found.append((model, name))
        return found

    def rpc_servers(self) -> list[str]:
        """The machine of each rpc-server."""
        return [name for _, name in self._processes(f"{_RPC_SERVER} -H ")]

    def _processes(self, words: str) -> Iterator[tuple[int, str]]:
        """Yield each process of these machines whose command line has ``words``, and which."""
        spaces = {box.space: box.name for box in self.boxes if box.on}
        for pid in processes(words):
            if (name := spaces.get(space_of(pid))) is not None:
                yield pid, name

    async def reservations(self, of: str = "") -> list[str]:
        """The names of what is reserved in Ray, likewise."""
        command = (sys.executable, "-m", "tests.outages.reserved", self.address)
        answer = await asyncio.to_thread(self.hub.run, *self.with_token(*command))
        names = list(json.loads(answer.splitlines()[-1]))
        others = of or self.left
        return [name for name in names if name.startswith(f"{others}/") is bool(of)]

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[Callable[[], bool]]:
        """Whether anything is reserved, as it is known at once."""
        command = (sys.executable, "-m", "tests.outages.reserved", self.address, "--follow")
        after = self._size(_WATCH)
        process = self._start(self.hub, _WATCH, *self.with_token(*command))
        await self._says(_WATCH, "]", after, process)

        def something() -> bool:
            told = [line for line in self.log(_WATCH).splitlines() if line.startswith("[")]
            return any(not name.startswith(f"{self.left}/") for name in json.loads(told[-1]))

        try:
            yield something
        finally:
            process.kill()
            self.hub.kill_process("tests.outages.reserved")

    async def leave(self) -> None:
        """Have another gateway load a model, and kill it for good."""
        models = {LEFT: {**scripted(self.folder), "preload": True}}
        self.configure("gone", self.hub, models, port=8082)
        process = await self.serve(self.hub, "gone")
        await self.server(LEFT)
        self.hub.kill_process("/gone/conf/gateway.yaml")
        await asyncio.to_thread(process.wait, 10)
        self.left = (self.folder / "gone/data/cluster/id").read_text().strip()
