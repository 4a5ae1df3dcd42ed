"""Fixtures: gateways that end with the test."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import hypothesis
import pytest

from gateway.backends.watchdog import PATIENCE
from gateway.config.load import load_settings
from gateway.config.settings import Settings
from gateway.library import Library
from gateway.server import Gateway
from tests import leaks
from tests.harness import FAKE, MakeGateway, Running, Served, alive, project
from tests.minilm_model import wheel, write_minilm_model
from tests.parrot_model import write_parrot_model
from tests.tiny_model import write_tiny_model

# What the tests start runs on the interpreter that runs them, as in an activated environment: a
# shim that looks for one would take longer than the scripted llama-server itself.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
# The threads of a real llama-server wait asleep. Several that spin on few cores, beside other
# tests, take ten times as long as they need.
os.environ["OMP_WAIT_POLICY"] = "passive"

# Images of containers switch bytecode off. Here it would be made anew by each worker, and by each
# of the hundreds of gateways.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Tests that a script starts in the background ignore Ctrl-C, and so does all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# An example may take as long as it likes: on a busy machine any may be slow once.
hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")


def pytest_xdist_auto_num_workers() -> int | None:
    """The workers of ``-n auto``: twice as many as cores, because most tests wait for processes."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None  # as it says
    return 2 * len(os.sched_getaffinity(0))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """End this process if the end of a test takes longer than a test may (a worker is replaced).

    uvloop's loop waits in C, where no signal's handler runs, when it is closed with a server or a
    process that a failed test has left; and pytest-timeout looks away once a test has failed.
    """
    faulthandler.dump_traceback_later(
        float(item.config.getini("timeout")), exit=True, file=sys.__stderr__
    )
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def nothing_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test whose gateways write a key or a prompt into their logs or databases."""
    with leaks.watched() as lines:
        yield
    folder = request.node.funcargs.get("tmp_path")
    assert leaks.leaks(lines, folder, request.node.module.__name__) == []


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start gateways that end with the test."""
    started: list[Served] = []

    def start(*arguments: str, **options: Any) -> Served:
        served = Served(options.pop("root", tmp_path), *arguments, **options)
        started.append(served)
        return served

    yield start
    for served in started:
        served.stop()


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One gateway with no configuration at all and the demo model, for the whole session."""
    served = Served(tmp_path_factory.mktemp("demo"))
    yield served
    served.stop()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that loads in an instant; see tiny_model.py for what it can say."""
    file = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    write_tiny_model(file)
    return file


@pytest.fixture(scope="session")
def parrot_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of which it is known what it says; see parrot_model.py."""
    file = tmp_path_factory.mktemp("parrot") / "parrot.gguf"
    write_parrot_model(file)
    return file


@pytest.fixture(scope="session")
def minilm_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real embedding model, with which rerank works too; see minilm_model.py."""
    file = tmp_path_factory.mktemp("minilm") / "minilm.gguf"
    write_minilm_model(file, wheel())
    return file


@pytest.fixture
def make_gateway(tmp_path: Path) -> MakeGateway:
    """``async with make_gateway(models, **settings) as running``.

    ``patience`` is no setting but how long the watchdog looks on, ``folder`` where its files are.
    """

    @contextlib.asynccontextmanager
    async def make(models: Mapping[str, Any], **settings: Any) -> AsyncIterator[Running]:
        root = tmp_path / settings.pop("folder", "project")
        settings.setdefault("llama_server", str(FAKE))
        patience = settings.pop("patience", PATIENCE)
        config = project(root, models, port=0, **settings)
        loaded: Settings = load_settings(config, environ={}).settings
        library = Library.open(loaded.models_file)
        async with (
            Gateway(loaded, library, config, patience=patience) as gateway,
            aiohttp.ClientSession() as session,
        ):
            await gateway.open_keys()
            assert gateway.ring is not None
            _, key = await gateway.ring.create("test", "", admin=True)
            running = Running(gateway, key, session)
            pids = set[int]()
            gateway.scheduler.subscribe(
                lambda: pids.update(s.pid for s in gateway.scheduler.status() if s.pid)
            )
            yield running
        for model in gateway.scheduler.status():
            backend = gateway.scheduler.backend(model.name)
            leaks.add_childs(backend.log.tail() if backend is not None else ())
        assert gateway.scheduler.in_flight == 0
        assert not [pid for pid in pids if alive(pid)]

    return make
