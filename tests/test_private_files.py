"""What the gateway makes is for its owner alone, whatever the umask."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.private_files import close_to_others, make_folder, open_private, write_private
from gateway.tls import self_signed
from tests.harness import COMMAND, FAKE, Served, fake_model, project

pytestmark = pytest.mark.slow


@pytest.fixture
def open_to_all() -> Iterator[None]:
    """The umask of somebody who keeps nothing back."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(file: Path) -> int:
    return stat.S_IMODE(file.lstat().st_mode)


def modes(root: Path) -> dict[str, int]:
    """The modes of all below ``root``, but for sockets."""
    found = [file for file in root.rglob("*") if not file.is_socket()]
    return {str(file.relative_to(root)): mode(file) for file in found}


def private(root: Path) -> None:
    for name, found in modes(root).items():
        wanted = 0o700 if (root / name).is_dir() else 0o600
        assert found == wanted, f"{name}: {found:o}"


@pytest.mark.usefixtures("open_to_all")
def test_files_and_folders_are_made_private(tmp_path: Path) -> None:
    make_folder(tmp_path / "a/b/c")
    write_private(tmp_path / "a/b/text", "text")
    with open_private(tmp_path / "a/b/c/lock") as stream:
        stream.write("x")
    private(tmp_path)
    assert (tmp_path / "a/b/text").read_text() == "text"


@pytest.mark.usefixtures("open_to_all")
def test_what_is_there_keeps_its_mode(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o755)
    make_folder(folder / "below")
    assert (mode(folder), mode(folder / "below")) == (0o755, 0o700)


@pytest.mark.usefixtures("open_to_all")
def test_files_are_private_from_init_to_a_running_gateway(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    root = tmp_path / "new/project"
    subprocess.run([COMMAND, "init", str(root)], check=True, capture_output=True)
    private(tmp_path / "new")
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    served = serve(
        "--config",
        str(root / "conf/gateway.yaml"),
        root=root,
        env={"JOURNAL_STREAM": "1:1", "XDG_RUNTIME_DIR": str(runtime)},
    )
    served.wait_for("(first admin key is in)", served.log)
    names = modes(root)
    assert {"data/gateway.db", "data/gateway.json", "data/first-admin-key.txt"} <= names.keys()
    private(root / "data")
    private(runtime)


@pytest.mark.usefixtures("open_to_all")
def test_a_first_start_closes_the_data_folder_of_a_clone(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    config = project(tmp_path / "p", {})
    data = tmp_path / "p/data"
    data.chmod(0o755)
    served = serve("--config", str(config))
    assert served.key  # told when the store is there
    assert mode(data) == 0o700
    served.stop()
    data.chmod(0o755)  # whoever opens it now means to
    served = serve("--config", str(config))
    served.wait_for("(keys are open|serving|ready|listening)", served.log)
    assert mode(data) == 0o755


@pytest.mark.usefixtures("open_to_all")
@pytest.mark.parametrize(
    ("before", "within", "after"),
    [
        (0o755, None, 0o700),
        (0o777, None, 0o700),
        (0o2770, None, 0o2770),  # a group's
        (0o1777, None, 0o1777),  # /tmp
        (0o755, "more", 0o755),  # a home folder
    ],
)
def test_folder_of_our_own_is_closed_to_others(
    tmp_path: Path, before: int, within: str | None, after: int
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "models.json").touch()
    if within is not None:
        (folder / within).mkdir()
    folder.chmod(before)
    close_to_others(folder)
    assert mode(folder) == after


@pytest.mark.usefixtures("open_to_all")
def test_record_of_a_child_is_private(serve: Callable[..., Served], tmp_path: Path) -> None:
    entry = {**fake_model(tmp_path), "preload": True}
    config = project(tmp_path / "p", {"m": entry}, data_dir="made/here")
    (tmp_path / "p/data/models.json").write_text(json.dumps({"m": entry}))
    served = serve("--config", str(config), env={"LLM_GATEWAY_LLAMA_SERVER": str(FAKE)})
    served.wait_for(r"(m: ready|m is ready|ready)", served.log)
    private(tmp_path / "p/made")
    assert mode(tmp_path / "p/made") == 0o700


@pytest.mark.usefixtures("open_to_all")
def test_everything_left_by_use_is_private(serve: Callable[..., Served], tmp_path: Path) -> None:
    """Certificates and chains are public, and lie in a folder that isn't."""
    root, runtime, cache = tmp_path / "project", tmp_path / "runtime", tmp_path / "cache"
    runtime.mkdir(mode=0o700)
    cache.mkdir(mode=0o700)
    config = str(root / "conf/gateway.yaml")

    def command(*words: str) -> None:
        env = {**os.environ, "XDG_RUNTIME_DIR": str(runtime)}
        subprocess.run([COMMAND, *words], check=True, capture_output=True, env=env)

    command("init", str(root))
    command("tls", "self-signed", "--config", config, "--domain", "localhost")
    command("tls", "self-signed", "--config", config, "--domain", "localhost", "--force")
    env = {"XDG_RUNTIME_DIR": str(runtime), "XDG_CACHE_HOME": str(cache)}
    served = serve("--config", config, root=root, env=env)
    (name,) = json.loads((root / "data/models.json").read_text()).keys() - {"$schema"}
    body = json.dumps({"model": name}).encode()
    headers = {"X-Api-Key": served.key, "Content-Type": "application/json"}
    asked = urllib.request.Request(f"{served.url}/loadModel", data=body, headers=headers)
    with urllib.request.urlopen(asked, timeout=60) as answer:
        assert answer.status == 200
    command("keys", "create", "--config", config, "friend")
    command("models", "add", "--config", config, "box=http://192.0.2.1:8080")
    found = modes(root)
    assert {"data/gateway.db-wal", "data/models.json~", "ssl/localhost-key.pem.bak"} <= found.keys()
    for file in (root / "ssl").glob("*-c*.pem*"):
        if "-key.pem" not in file.name:
            assert mode(file) in (0o644, 0o600)
            file.chmod(0o600)
    private(root)
    private(runtime)
    private(cache)


@pytest.mark.usefixtures("open_to_all")
def test_keys_of_certificates_are_private(tmp_path: Path) -> None:
    made = self_signed(["localhost"], tmp_path / "new/ssl")
    assert mode(tmp_path / "new") == mode(tmp_path / "new/ssl") == 0o700
    assert mode(made.private_key) == 0o600
