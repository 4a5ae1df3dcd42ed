"""A folder for scripted models, looked through for leftovers after each test."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.backends.backend import State
from gateway.backends.decision import SchedulingLimits
from gateway.backends.scheduler import Scheduler
from gateway.models.local_model import LocalModel
from gateway.models.model import Model
from tests.backends.machines import NVML, tree
from tests.local_backends import WatchedLocal
from tests.remote_backends import WatchedRemote, spec_of
from tests.remote_server import RemoteServer
from tests.scripted import Box, catalog_of, gone

#: What starts processes is tried on both loops; the rest runs on the one the gateway prefers.
_ON_BOTH = {"test_process.py"}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
        "uvloop": uvloop.new_event_loop
    }
    if item.path.name in _ON_BOTH:
        factories["asyncio"] = asyncio.new_event_loop
    return factories


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    # Not tmp_path: the path of a Unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        box = Box(Path(folder))
        open_files = _open_files()
        yield box
        # What was killed may need a moment to disappear, but nothing may stay.
        assert [pid for pid in box.alive() if not await gone(pid, 10)] == []
        assert box.left() == []
        # A thread whose caller has gone may still be reading a file.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                while _open_files() > open_files:
                    gc.collect()
                    await asyncio.sleep(0.02)
        assert _open_files() <= open_files


def _open_files() -> int:
    found = 0
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - Path.iterdir has more open
        with contextlib.suppress(OSError):
            # libuv keeps one of these for each loop, in case there are no more files to be had.
            found += os.readlink(f"/proc/self/fd/{number}") != "/dev/null"  # noqa: PTH115
    return found


MakeScheduler = Callable[..., Scheduler]


@pytest.fixture
async def make_scheduler(box: Box) -> AsyncIterator[MakeScheduler]:
    """Schedulers that end with the test; afterwards nothing may be in flight or waiting."""
    made: list[Scheduler] = []

    def make(*specs: Model, **options: Any) -> Scheduler:
        names = ("max_loaded", "budget", "patience", "linger")
        limits = {name: options.pop(name) for name in names if name in options}
        own: dict[str, Any] = {"queue_size": 100, "queue_timeout": 20.0, "idle_unload": None}
        own |= {"memory_known": True}
        own |= {key: options.pop(key) for key in list(options) if key in own}
        environment = box.environment(**options)
        scheduler = Scheduler(catalog_of(*specs), environment, SchedulingLimits(**limits), **own)
        made.append(scheduler)
        return scheduler

    yield make
    for scheduler in made:
        await scheduler.close()
        assert scheduler.in_flight == 0
        assert all(s.in_flight == s.queued == 0 for s in scheduler.status())
        assert all(s.pid is None for s in scheduler.status())


MakeLocal = Callable[..., WatchedLocal]


@pytest.fixture
async def make_local(box: Box) -> AsyncIterator[MakeLocal]:
    made: list[WatchedLocal] = []

    def make(spec: LocalModel | None = None, /, **options: Any) -> WatchedLocal:
        environment = {
            key: options.pop(key)
            for key in list(options)
            if key in {"load_timeout", "stop_grace", "llama_server", "records", "runtime_dir"}
            or key.startswith(("backoff", "failed_", "quick", "health_"))
        }
        backend = WatchedLocal(
            spec or box.spec(**options), box.environment(**environment), f"{len(made)}.sock"
        )
        made.append(backend)
        return backend

    yield make
    for backend in made:
        await backend.stop()


MakeRemote = Callable[..., WatchedRemote]


@pytest.fixture
async def make_remote(box: Box) -> AsyncIterator[MakeRemote]:
    """Backends that end with the test."""
    made: list[WatchedRemote] = []

    def make(*servers: RemoteServer | str, environ: Any = None, **entry: Any) -> WatchedRemote:
        options = {} if environ is None else {"environ": environ}
        made.append(WatchedRemote(spec_of(*servers, **entry), box, **options))
        return made[-1]

    yield make
    for backend in made:
        await backend.stop()
        assert backend.state is State.STOPPED


@pytest.fixture
async def servers() -> AsyncIterator[list[RemoteServer]]:
    """Two of them."""
    async with RemoteServer() as one, RemoteServer() as two:
        yield [one, two]


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}"


@pytest.fixture
def nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    folder = tmp_path / "packages"
    tree(folder, {"pynvml.py": NVML})
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    import pynvml

    yield pynvml
    del sys.modules["pynvml"]
