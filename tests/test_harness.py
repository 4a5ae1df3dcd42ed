"""What the tests start ends with them, however they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import REPOSITORY, alive, wait_until

pytestmark = pytest.mark.slow

#: A test file whose worker is killed while its gateway has two models loaded, each in a
#: llama-server of its own: the gateway a process here, or the worker itself.
_KILLED = """
import json
import os
import signal
from pathlib import Path

from tests.harness import FAKE, Served, fake_model, project


def end(pids):
    Path(os.environ["PIDS"]).write_text(json.dumps(pids))
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process(tmp_path, serve):
    models = {name: fake_model(tmp_path) for name in "ab"}
    served = serve("--config", str(project(tmp_path / "p", models, llama_server=str(FAKE))))
    with served.client() as client:
        for name in models:
            client.chat.completions.create(model=name, messages=[{"role": "user", "content": "x"}])
        admin = client.get("../admin/models", cast_to=object)
    end([served.process.pid, *(model["pid"] for model in admin["models"])])


async def test_in_the_worker(tmp_path, make_gateway):
    async with make_gateway({name: fake_model(tmp_path) for name in "ab"}) as running:
        for name in "ab":
            await running.chat(name)
        end([model.pid for model in running.gateway.scheduler.status()])
"""


def pytest_of_its_own(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """pytest with our fixtures, and ``text`` as its only test file."""
    (folder / "test_it.py").write_text(text)
    return subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "-p",
                "tests.conftest",
            ),
            *("-c", str(REPOSITORY / "pyproject.toml"), "--rootdir", str(folder)),
            *("--basetemp", str(folder / "t"), *options, str(folder / "test_it.py")),
        ],
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "PIDS": str(folder / "pids.json"),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )


@pytest.mark.parametrize("where", ["a_process", "in_the_worker"])
def test_a_worker_that_is_killed_takes_its_gateway_with_it(tmp_path: Path, where: str) -> None:
    done = pytest_of_its_own(tmp_path, _KILLED, "-n1", "--max-worker-restart=0", f"-k{where}")
    assert "crashed while running" in done.stdout, done.stdout + done.stderr
    pids = json.loads((tmp_path / "pids.json").read_text())
    assert len(pids) == 3 if where == "a_process" else 2
    wait_until(lambda: not any(map(alive, pids)), 10, "everything has ended")


#: A loop that is closed with a server that serves; the failure makes pytest-timeout look away.
_LEFT = """
import asyncio

import pytest
import uvloop


@pytest.fixture
def loop():
    loop = uvloop.new_event_loop()
    yield loop
    loop.close()


def test_it(loop):
    loop.left = loop.run_until_complete(loop.create_server(asyncio.Protocol, "127.0.0.1", 0))
    pytest.fail("and leaves its server")


def test_another():
    pass
"""


def test_a_test_whose_end_hangs_is_not_the_last(tmp_path: Path) -> None:
    done = pytest_of_its_own(tmp_path, _LEFT, "-n1", "-o", "timeout=5")
    assert "crashed while running 'test_it.py::test_it'" in done.stdout, done.stdout + done.stderr
    assert "1 passed" in done.stdout
