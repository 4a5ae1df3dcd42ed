"""What `doctor` says of the head of a cluster, of its keys, and of its nodes."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway import __version__
from gateway.cluster.ca import Authority
from gateway.cluster.token import make_token
from gateway.config.settings import ClusterSettings, Settings
from gateway.doctor import nodes
from gateway.doctor.checks import Finding, Level, Running, Subject
from gateway.models.catalog import EMPTY, parse_catalog
from tests.cluster.conftest import folder
from tests.cluster.gateways import cluster_of
from tests.cluster.machines import Machines
from tests.doctor.test_cluster import ray
from tests.harness import MakeGateway
from tests.harness import Running as Gateway
from tests.scripted import Box

__all__ = ["folder", "ray"]

SPANS = '{"big": {"params": {"model": "m.gguf"}, "machines": 2}}'


@pytest.fixture
def installed(ray: Any) -> None:
    """Have a Ray, as far as a look at what is installed tells."""
    ray("2.60.0")


def subject(
    tmp_path: Path, address: str = "auto", *, told: Any = None, models: str = "{}"
) -> Subject:
    settings = Settings(data_dir=tmp_path / "data", cluster=ClusterSettings(address=address))
    running = Running(1, {}, None, told) if told is not None else None
    catalog = parse_catalog(models, file="m") if models != "{}" else EMPTY
    return Subject(settings, catalog, {}, running=running)


def told_of(*, away: str | None = None, **node: Any) -> dict[str, Any]:
    """What the gateway answers, with one node."""
    one = {
        "name": "attic",
        "up": True,
        "problem": None,
        "version": __version__,
        "no_rpc": None,
        "devices": [{"name": "CUDA0"}],
        "llama_server": "6123 (abc)",
        "troubles": [],
        "clock_off": 0.2,
        **node,
    }
    return {"cluster": {"problem": away}, "nodes": [one]}


def of_nodes(found: Any) -> list[Finding]:
    return [one for one in found if one.name == "node"]


def test_without_a_cluster_nothing_is_said(tmp_path: Path) -> None:
    assert list(nodes.check_cluster(Subject(Settings(data_dir=tmp_path), EMPTY, {}))) == []


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_there_is_what_to_install(tmp_path: Path) -> None:
    (found,) = nodes.check_cluster(subject(tmp_path))
    assert (found.level, found.do) == (Level.ERROR, "pip install 'ray>=2.60'")


@pytest.mark.usefixtures("installed")
def test_a_head_that_is_not_there_is_told_with_what_to_look_at(tmp_path: Path) -> None:
    make_token(tmp_path / "data")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        for told in (None, told_of(away="the head is away")):
            found = list(nodes.check_cluster(subject(tmp_path, address, told=told)))
            (wrong,) = [one for one in found if one.level is Level.ERROR]
            assert wrong.what == f"nothing listens at {address}"
            assert "is `llm-gateway node head` running there" in wrong.do


@pytest.mark.usefixtures("installed")
def test_a_token_is_needed_and_nobody_else_s_to_read(tmp_path: Path) -> None:
    (found,) = [one for one in nodes.check_cluster(subject(tmp_path)) if "token" in one.what]
    assert (found.level, "isn't there" in found.what) == (Level.WARNING, True)
    assert "copy cluster/token from the head's data_dir" in found.do
    token = make_token(tmp_path / "data")
    assert not [one for one in nodes.check_cluster(subject(tmp_path)) if "token" in one.what]
    token.chmod(0o644)
    (found,) = [one for one in nodes.check_cluster(subject(tmp_path)) if "token" in one.what]
    assert (found.level, found.do) == (Level.WARNING, f"chmod 600 {token}")


@pytest.mark.usefixtures("installed")
def test_an_authority_that_is_of_no_use_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "data/cluster"
    make_token(tmp_path / "data")

    def found() -> list[Finding]:
        return [one for one in nodes.check_cluster(subject(tmp_path)) if "authority" in one.what]

    assert found() == []  # the gateway makes it
    Authority.open(place)
    assert [one.level for one in found()] == [Level.OK]
    monkeypatch.setattr(nodes, "_SOON", timedelta(days=100_000))
    assert [one.level for one in found()] == [Level.WARNING]
    Authority.open(tmp_path / "other")
    (place / "ca-key.pem").write_bytes((tmp_path / "other/ca-key.pem").read_bytes())
    (wrong,) = found()
    assert (wrong.level, "not that of the key" in wrong.what) == (Level.ERROR, True)
    assert "move ca-key.pem and ca-crt.pem away" in wrong.do
    (place / "ca-key.pem").unlink()
    assert [one.level for one in found()] == [Level.ERROR]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("node", "level", "words", "do"),
    [
        ({}, Level.OK, "up, CUDA0, llama-server 6123 (abc)", ""),
        ({"devices": []}, Level.OK, "no device", ""),
        (
            {"up": False, "problem": "no answer", "llama_server": None, "version": ""},
            *(Level.WARNING, "away: no answer", "`llm-gateway node remove attic` forgets it"),
        ),
        ({"version": "0.1"}, Level.ERROR, "it has llm-gateway 0.1", "install llm-api-gateway"),
        ({"clock_off": 61.2}, Level.WARNING, "61 s ahead of", "timedatectl set-ntp true"),
        ({"clock_off": -9.0}, Level.WARNING, "9 s behind", "timedatectl set-ntp true"),
        ({"no_rpc": "no --rpc"}, Level.WARNING, "part in big: no --rpc", "GGML_RPC"),
    ],
)
def test_what_is_wrong_with_a_node_is_told_with_what_helps(
    tmp_path: Path, node: dict[str, Any], level: Level, words: str, do: str
) -> None:
    made = subject(tmp_path, told=told_of(**node), models=SPANS)
    (found,) = of_nodes(nodes.check_cluster(made))
    assert (found.subject, found.level) == ("attic", level)
    assert words in found.what
    assert do in found.do


@pytest.mark.usefixtures("installed")
def test_nobody_has_joined(tmp_path: Path) -> None:
    told = {"cluster": {"problem": None}, "nodes": []}
    (found,) = [
        one
        for one in nodes.check_cluster(subject(tmp_path, told=told))
        if one.what == "no other machine has joined"
    ]
    assert "llm-gateway node join" in found.do


# --- what nodes really tell ---


@pytest.fixture
async def machines(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Machines]:
    made = Machines(Box(folder))
    monkeypatch.setattr("gateway.app.cluster_of", cluster_of(made))
    yield made
    await made.close()


async def told_by(running: Gateway, name: str) -> dict[str, Any]:
    while True:
        _, told = await running.json("GET", "/admin/nodes")
        if any(one["name"] == name and one["up"] for one in told["nodes"]):
            return dict(told)


@pytest.mark.usefixtures("installed")
async def test_a_node_tells_of_its_programs_and_its_folder(
    machines: Machines, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    no_folder = tmp_path / "file"
    no_folder.touch()
    await machines.start("attic")
    await machines.start("cellar", llama_server=str(tmp_path / "none"), llm_storage=no_folder)
    async with make_gateway({}, cluster={}) as running:
        for name in ("attic", "cellar"):
            told = await told_by(running, name)
        found = of_nodes(nodes.check_cluster(subject(tmp_path, told=told)))
    attic = [one for one in found if one.subject == "attic"]
    assert [one.level for one in attic] == [Level.OK]
    assert "llama-server 1 (fake)" in attic[0].what
    cellar = {one.what: one for one in found if one.subject == "cellar"}
    (program,) = [one for what, one in cellar.items() if str(tmp_path / "none") in what]
    assert (program.level, "llama_server in gateway.yaml" in program.do) == (Level.ERROR, True)
    (storage,) = [one for what, one in cellar.items() if str(no_folder) in what]
    assert (storage.level, "can't be read: Not a directory" in storage.what) == (Level.ERROR, True)
    assert storage.do == "let the user of `node join` read it"
