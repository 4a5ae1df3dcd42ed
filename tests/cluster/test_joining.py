"""What keeps a machine out of a cluster is told before anything of Ray is started."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from gateway import __version__
from gateway.cli import main
from gateway.cluster import joining, ray_command
from gateway.cluster.ray_process import CannotJoin, RayProcess, folder_of
from gateway.cluster.token import known_token, make_token, save_token
from gateway.errors import BadRequest

RAY = "2.60.0"


@pytest.fixture
def ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a Ray installed, as far as a look at what is installed tells."""
    folder = tmp_path / f"ray-{RAY}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ray\nVersion: {RAY}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("LLM_GATEWAY_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


# --- the head ---


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:PORT", "nothing listens at 127.0.0.1:PORT: is `llm-gateway node head` running"),
        ("no-such-host.invalid:6379", "no machine is called 'no-such-host.invalid'"),
    ],
)
async def test_a_head_that_is_not_there_is_told(address: str, words: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
        with pytest.raises(CannotJoin) as caught:
            await joining.ask_head(address.replace("PORT", port), dict(os.environ))
    assert words.replace("PORT", port) in caught.value.message


def known(**others: Any) -> dict[str, Any]:
    return {"ray": RAY, "python": None, "version": __version__, "nodes": {}, **others}


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize(
    ("head", "words"),
    [
        ({"ray": "2.61.0"}, "pip install 'ray==2.61.0'"),
        ({"python": "3.10.4"}, "the head runs on Python 3.10"),
        ({"version": "0.0.1"}, f"the head has llm-gateway 0.0.1, and this machine {__version__}"),
        ({"nodes": {"attic": "10.0.0.9"}}, "'attic' has joined already, at 10.0.0.9: --name"),
    ],
)
def test_what_differs_is_told_with_what_to_do(head: dict[str, Any], words: str) -> None:
    assert words in (joining.why_not(known(**head), "attic", "10.0.0.2") or "")


@pytest.mark.usefixtures("ray")
def test_the_same_machine_may_join_again() -> None:
    assert joining.why_not(known(nodes={"attic": "10.0.0.2"}), "attic", "10.0.0.2") is None
    # A head of somebody else's has no version of ours.
    assert joining.why_not(known(version=None, ray=None), "attic", "10.0.0.2") is None


def test_the_address_of_this_machine_is_that_on_the_way_to_the_head() -> None:
    assert joining.address_towards("127.0.0.9:6379") == "127.0.0.1"
    with pytest.raises(CannotJoin, match="no machine is called"):
        joining.address_towards("no-such-host.invalid:6379")


# --- the token ---


def test_a_token_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    file = make_token(tmp_path)
    made = file.read_text()
    assert make_token(tmp_path).read_text() == made
    assert file.stat().st_mode & 0o777 == 0o600
    assert known_token(tmp_path / "cluster") == file
    assert save_token(tmp_path, f" {made}\n").read_text() == made


@pytest.mark.parametrize("text", ["", "short", "with a space in the middle of it", "x" * 600])
def test_what_is_no_token_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadRequest, match="no token of a cluster"):
        save_token(tmp_path, text)
    assert known_token(tmp_path / "cluster") is None


# --- Ray's own command ---


def test_rays_command_says_what_a_machine_brings(tmp_path: Path) -> None:
    command = ray_command.node("10.0.0.1:6379", "10.0.0.2", "attic", {"llm:attic/RAM": 5}, tmp_path)
    options = dict(zip(command[6::2], command[7::2], strict=False))
    assert json.loads(options["--resources"]) == {"llm:attic/RAM": 5}
    assert options["--address"] == "10.0.0.1:6379"
    assert "--head" not in command
    assert "RAY_AUTH_MODE" not in ray_command.variables(None)
    head = ray_command.head_variables(tmp_path / "token", tmp_path / "head")
    assert head["RAY_AUTH_TOKEN_PATH"] == str(tmp_path / "token")
    assert head["RAY_gcs_storage_path"] == str(tmp_path / "head")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("echo 'ValueError: no such port'; exit 1", "ValueError: no such port"),
        ("exit 3", "it wrote nothing"),
        (
            "echo 'raylet [exit code=1]'; echo '----- END raylet.out tail (exit code(s)=1) -----'",
            r"raylet \[exit code=1\]",
        ),
    ],
)
async def test_why_ray_does_not_start_is_told(tmp_path: Path, program: str, words: str) -> None:
    process = RayProcess(("/bin/sh", "-c", program), dict(os.environ), "attic", tmp_path / "ray")
    with pytest.raises(CannotJoin, match=words):
        await process.start()


async def test_a_ray_that_does_not_start_in_time_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.cluster.ray_process._START", 0.5)
    command = ("/bin/sh", "-c", "echo Local node IP: 10.0.0.1; exec sleep 60")
    process = RayProcess(command, dict(os.environ), "attic", tmp_path / "ray")
    with pytest.raises(CannotJoin, match=r"within 0\.5 s: has this machine too much to do\?"):
        await process.start()


async def test_what_ray_has_started_ends_with_it(tmp_path: Path) -> None:
    started = f"sleep 300 & echo $! >{tmp_path}/pid; setsid sleep 301 & echo $! >{tmp_path}/other"
    script = f"{started}; echo '{ray_command.STARTED}'; wait"
    process = RayProcess(("/bin/bash", "-c", script), dict(os.environ), "attic", tmp_path / "ray")
    await process.start()
    pids = [int((tmp_path / name).read_text()) for name in ("pid", "other")]
    assert all(Path(f"/proc/{pid}").exists() for pid in pids)
    await process.stop()
    async with asyncio.timeout(10):
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            await asyncio.sleep(0.01)  # until they are reaped
    assert not list((tmp_path / "ray").iterdir())


def test_a_folder_is_for_one_process_at_a_time(tmp_path: Path) -> None:
    with folder_of(tmp_path, "attic") as folder:
        assert folder.is_dir()
        assert len(str(folder)) <= ray_command.LONGEST_FOLDER
        with pytest.raises(CannotJoin, match="attic runs already"), folder_of(tmp_path, "attic"):
            pass
    assert not folder.exists()


# --- the command line ---


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("join http://attic", "HEAD: 'http://attic': give a host with its port"),
        ("join auto", "HEAD: 'auto': a node needs the head's own address"),
        ("join ray://attic", "a node needs the head's own address"),
        ("join 127.0.0.1 --name here", "--name: 'here' means another machine"),
        ("join 127.0.0.1 --name a/b", "--name: 'a/b' is no name of a node"),
        ("join 127.0.0.1 --name attic --token-file gone", "--token-file gone: No such file"),
        ("join 127.0.0.1 --name attic", "the cluster's token is needed"),
        ("join 127.0.0.1 --name attic --user", "--user and --dry-run are for --service"),
        ("head --dry-run", "--user and --dry-run are for --service"),
        ("head --port 0", "--port: ports are from 1 to 65535"),
        ("head --host no-such-host.invalid", "--host no-such-host.invalid"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_one_sentence(
    words: str, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["node", *words.split()]) == 1
    assert error in capsys.readouterr().err
