"""What tests of faults share: conversations with one model, in a folder that is looked into."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from gateway.tasks import spawn
from tests.conversations.test_real_llama_server import cache, words
from tests.harness import Running, wait_until

T = TypeVar("T")

SAVING, RESTORING = "save slot 0 of a", "restore slot 0 of a"
SETTINGS: dict[str, Any] = {"llama_server": "auto", "cache": cache()}


def said(seed: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{seed} " + words(seed, 50)}]


def folder_of(running: Running) -> Path:
    return Path(running.gateway.settings.data_dir) / "cache"


def names(folder: Path) -> list[str]:
    """The suffixes of what is there, or the beginning of what is but half written."""
    left = [file.name for file in folder.iterdir() if file.name != "lock"]
    return sorted("new" if name.startswith("new-") else Path(name).suffix for name in left)


async def until(condition: Any, what: str) -> None:
    await asyncio.to_thread(wait_until, condition, 60, what)


def doing(what: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    return spawn(what, name="a client")


async def begun(name: str) -> None:
    """Return when a task called ``name`` runs."""
    async with asyncio.timeout(60):
        while not any(task.get_name() == name for task in asyncio.all_tasks()):
            await asyncio.sleep(0.01)


async def over(name: str) -> None:
    """Return when none does any more."""
    tasks = [task for task in asyncio.all_tasks() if task.get_name() == name]
    await asyncio.wait(tasks)


def pid_of(running: Running, model: str = "a") -> int:
    backend = running.gateway.scheduler.backend(model)
    assert backend is not None
    assert backend.pid is not None
    return backend.pid


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
