"""The folder of a running gateway's sockets: where it lies, and who removes it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateway.problems import InvalidFiles
from gateway.runtime import Runtime
from tests.harness import FAKE, Served, fake_model, project
from tests.test_demo import get

Serve = Callable[..., Served]


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path, as sockets need it."""
    with tempfile.TemporaryDirectory(prefix="gw", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def places(short: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is set but the folder for temporary files."""
    for variable in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    return short


def folder_of(served: Served) -> Path:
    (note,) = served.root.glob("*/data/gateway.json")
    return Path(json.loads(note.read_bytes())["control"]).parent


@pytest.mark.parametrize("variable", ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "TMPDIR"])
def test_what_a_killed_gateway_left_is_removed_by_the_next(
    serve: Serve, tmp_path: Path, short: Path, variable: str
) -> None:
    """And what a living one needs stays, whoever starts beside it."""
    clean = {"RUNTIME_DIRECTORY": "", "XDG_RUNTIME_DIR": ""}
    env = {**clean, variable: str(short)}
    home = {
        "RUNTIME_DIRECTORY": short,
        "XDG_RUNTIME_DIR": short / "llm-gateway",
        "TMPDIR": short / f"llm-gateway-{os.geteuid()}",
    }[variable]

    def start(name: str) -> Served:
        root = tmp_path / name
        if not root.exists():
            project(root / "p", {"m": fake_model(tmp_path)}, llama_server=str(FAKE))
        served = serve("--config", str(root / "p/conf/gateway.yaml"), root=root, env=env)
        assert get(served, "/ready", key="-")[0] in (200, 503)
        return served

    living, killed = start("living"), start("killed")
    assert living.key  # its models can be asked for
    with living.client() as client:
        question: Any = [{"role": "user", "content": "hi"}]
        client.chat.completions.create(model="m", messages=question)
        assert {folder_of(living), folder_of(killed)} == set(home.iterdir())
        assert home.stat().st_mode & 0o077 == 0
        left = folder_of(killed)
        killed.stop(signal.SIGKILL)
        assert (left / "control.sock").exists()

        other = start("other")
        assert set(home.iterdir()) == {folder_of(living), folder_of(other)}
        assert str(left) in other.wait_for(r"removed (\S+), which a gateway", other.log)
        client.chat.completions.create(model="m", messages=question)
    assert get(living, "/admin/status")[0] == 200
    for served in (other, living):
        assert served.stop() == 0
    assert list(home.iterdir()) == []


def test_leavings_in_another_place_are_removed(
    tmp_path: Path, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was started from a desktop, the next one by cron, where XDG_RUNTIME_DIR isn't set."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(places))
    program = "import sys; from pathlib import Path; from gateway.runtime import Runtime\n"
    program += "runtime = Runtime(Path(sys.argv[1])); runtime.open()\n"
    program += "print(runtime.folder, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as killed:
        assert killed.stdout is not None
        folder = Path(killed.stdout.readline().strip())
        killed.kill()
    assert folder.parent == places / "llm-gateway"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    following = Runtime(tmp_path)
    following.open()
    assert following.folder.parent == places / f"llm-gateway-{os.geteuid()}"
    assert not folder.exists()
    following.close()
    assert not following.folder.exists()


def test_gateways_that_start_at_once_leave_each_others_folders_alone(
    tmp_path: Path, places: Path
) -> None:
    """Nobody's folder is taken for one that was left behind, not even while it is being made."""

    def live(number: int) -> None:
        runtime = Runtime(tmp_path / str(number))
        for _ in range(60):
            runtime.open()
            mark = runtime.folder / "mark"
            mark.touch()
            runtime_too = Runtime(tmp_path / f"{number} too")
            runtime_too.open()
            assert mark.exists()
            runtime_too.close()
            assert mark.exists()
            runtime.close()
            assert not runtime.folder.exists()

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(live, number) for number in range(8)]:
            done.result()
    assert list((places / f"llm-gateway-{os.geteuid()}").iterdir()) == []


@pytest.mark.parametrize("trap", ["link", "file", "somebody else's"])
def test_trap_in_the_folder_for_temporary_files_is_avoided(
    tmp_path: Path, places: Path, monkeypatch: pytest.MonkeyPatch, trap: str
) -> None:
    home = places / f"llm-gateway-{os.geteuid()}"
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "run-precious").mkdir(parents=True)
    if trap == "link":
        home.symlink_to(elsewhere)
    elif trap == "file":
        home.touch()
    elif os.geteuid() == 0:
        home.mkdir()
        os.chown(home, 12345, 12345)
    else:
        pytest.skip("only root can make a folder of somebody else's")
    runtime = Runtime(tmp_path / "data")
    runtime.open()
    assert home not in runtime.folder.parents
    assert elsewhere not in runtime.folder.resolve().parents
    runtime.close()
    assert (elsewhere / "run-precious").is_dir()


def test_a_folder_that_others_may_enter_is_closed(tmp_path: Path, places: Path) -> None:
    home = places / f"llm-gateway-{os.geteuid()}"
    home.mkdir(mode=0o777)
    home.chmod(0o777)
    runtime = Runtime(tmp_path)
    runtime.open()
    assert runtime.folder.parent == home
    assert home.stat().st_mode & 0o777 == 0o700
    runtime.close()


def test_too_long_a_path_for_a_socket_is_avoided(
    tmp_path: Path, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(long))
    runtime = Runtime(tmp_path / "data")
    runtime.open()
    assert runtime.folder.parent == places / f"llm-gateway-{os.geteuid()}"
    runtime.close()


def test_one_data_folder_is_for_one_gateway(tmp_path: Path, places: Path) -> None:
    first, second = Runtime(tmp_path), Runtime(tmp_path)
    first.open()
    with pytest.raises(InvalidFiles, match=rf"in use by another gateway \(process {os.getpid()}\)"):
        second.open()
    assert first.folder.is_dir()
    first.close()
