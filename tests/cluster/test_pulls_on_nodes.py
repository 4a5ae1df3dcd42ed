"""Models fetched from the hub by a node of the cluster, and entered here."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.cluster.link import Unreachable
from gateway.models.paths import resolve_model_path
from tests.api.test_pulls import begun, children, seen
from tests.cluster.gateways import cluster_of
from tests.cluster.machines import Machines
from tests.cluster.test_nodes_api import all_up
from tests.harness import DEMO_GGUF, MakeGateway, Running, alive, wait_until
from tests.hub_server import HubServer, Repo, tiny_hub
from tests.scripted import Box

pytestmark = pytest.mark.slow

NAME = "me/tiny-GGUF"
FILE = "me/tiny-GGUF/tiny-Q4_0.gguf"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with tiny_hub(NAME, tmp_path, monkeypatch) as server:
        yield server


@pytest.fixture
async def machines(
    folder: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Machines]:
    """The attic and the cellar, each with a folder of its own."""
    made = Machines(Box(folder))
    monkeypatch.setattr("gateway.app.cluster_of", cluster_of(made))
    for name in ("attic", "cellar"):
        await begin(made, name)
    yield made
    await made.close()


async def begin(machines: Machines, name: str, **settings: Any) -> None:
    storage = storage_of(machines, name)
    await machines.start(name, llm_storage=storage, llama_server="auto", **settings)


def storage_of(machines: Machines, name: str) -> Path:
    return machines.box.folder / f"models-{name}"


@pytest.fixture
async def running(
    machines: Machines, make_gateway: MakeGateway, tmp_path: Path
) -> AsyncIterator[Running]:
    storage = str(tmp_path / "LLMs")
    async with make_gateway({}, llama_server="auto", llm_storage=storage, cluster={}) as running:
        await all_up(running, "attic", "cellar")
        yield running


@pytest.fixture
def entries(tmp_path: Path) -> Callable[[], dict[str, Any]]:
    """What models.json has."""

    def read() -> dict[str, Any]:
        found: dict[str, Any] = json.loads((tmp_path / "project/data/models.json").read_text())
        return found

    return read


async def test_a_model_is_fetched_by_a_node_and_answers_there(
    running: Running,
    machines: Machines,
    server: HubServer,
    tmp_path: Path,
    entries: Callable[[], dict[str, Any]],
) -> None:
    file = resolve_model_path(DEMO_GGUF, tmp_path)
    server.repos["me/SmolLM2-GGUF"] = Repo({file.name: file.read_bytes()})
    id_ = await begun(running, "me/SmolLM2-GGUF:Q4_1", node="attic")
    pull = await seen(running, id_, "done")
    assert (pull["node"], pull["bytes"]) == ("attic", file.stat().st_size)
    entry = entries()[pull["name"]]
    assert entry["nodes"] == ["attic"]
    assert (storage_of(machines, "attic") / entry["params"]["model"]).is_file()
    assert not (tmp_path / "LLMs").exists()
    status, answer = await running.chat(pull["name"], max_tokens=4)
    assert status == 200, answer
    _, told = await running.json("GET", "/admin/models")
    assert [one["nodes"] for one in told["models"]] == [["attic"]]
    assert await running.json("GET", "/admin/pulls") == (200, {"pulls": [pull]})
    assert await running.json("DELETE", f"/admin/pulls/{id_}") == (200, pull)
    assert await running.json("GET", "/admin/pulls") == (200, {"pulls": []})


async def test_its_entry_names_no_machine_where_others_have_the_file(
    running: Running, entries: Callable[[], dict[str, Any]]
) -> None:
    first = await seen(running, await begun(running, NAME, node="attic", entry=False), "done")
    assert (first["name"], entries()) == (None, {})
    second = await seen(running, await begun(running, NAME, node="cellar", name="tiny"), "done")
    assert second["name"] == "tiny"
    assert "nodes" not in entries()["tiny"]
    # What has an entry keeps it.
    before = entries()
    third = await seen(running, await begun(running, NAME, node="attic"), "done")
    assert (third["name"], entries()) == ("tiny", before)


async def test_one_that_is_ended_goes_on_later(
    running: Running, machines: Machines, server: HubServer
) -> None:
    data = random.Random(1).randbytes(3_000_000)
    server.repos[NAME] = Repo({"big-Q4_0.gguf": data})
    server.holds = [1_000_000, 500_000]
    wanted = {"node": "attic", "entry": False}
    id_ = await begun(running, NAME, **wanted)
    pull = await seen(running, id_, "downloading")
    assert (pull["quantisation"], pull["total"]) == ("Q4_0", len(data))
    assert await begun(running, NAME, **wanted) == id_  # it runs already
    folder = storage_of(machines, "attic") / NAME
    part = await grown(folder, 1_000_000)
    status, ended = await running.json("DELETE", f"/admin/pulls/{id_}")
    assert (status, ended["stage"]) == (200, "ended")
    assert list(folder.iterdir()) == [part]

    id_ = await begun(running, NAME, **wanted)
    assert await grown(folder, 1_500_000) == part
    status, ended = await running.json("DELETE", f"/admin/pulls/{id_}?discard=true")
    assert (status, ended["stage"]) == (200, "ended")
    assert list(folder.iterdir()) == []
    assert server.starts() == [0, 1_000_000]


async def grown(folder: Path, size: int) -> Path:
    def found() -> list[Path]:
        return [part for part in folder.glob(".*.part") if part.stat().st_size == size]

    await asyncio.to_thread(wait_until, lambda: bool(found()), 30, f"{size} bytes")
    return found()[0]


async def test_the_token_reaches_the_node_and_nobody_else(
    running: Running,
    machines: Machines,
    server: HubServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The gateway's token, and not the node's own, which may be for another hub."""
    caplog.set_level(logging.DEBUG)
    server.repos[NAME].gated = "auto"
    environment = running.gateway.scheduler.environment
    monkeypatch.setitem(environment.environ, "HF_TOKEN", "hf_of_the_gateway")
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_node")
    carried: list[str] = []
    call = machines.call

    async def note(actor: str, method: str, *arguments: Any) -> Any:
        answer = await call(actor, method, *arguments)
        carried.append(repr((arguments, answer)))
        return answer

    monkeypatch.setattr(machines, "call", note)
    pull = await seen(running, await begun(running, NAME, node="attic"), "done", "failed")
    assert {one.token for one in server.asked} == {"Bearer hf_of_the_gateway"}, pull
    assert "PullOrder" in "".join(carried)
    everything = "".join(carried) + caplog.text + json.dumps(pull)
    assert "hf_of" not in everything


async def test_a_node_goes_on_while_its_gateway_starts_anew(
    machines: Machines,
    make_gateway: MakeGateway,
    server: HubServer,
    tmp_path: Path,
    entries: Callable[[], dict[str, Any]],
) -> None:
    server.holds = [1000]
    options: dict[str, Any] = {"llm_storage": str(tmp_path / "LLMs"), "cluster": {}}
    async with make_gateway({}, **options) as first:
        await all_up(first, "attic", "cellar")
        id_ = await begun(first, NAME, node="attic", name="tiny")
        await seen(first, id_, "downloading")
        await grown(storage_of(machines, "attic") / NAME, 1000)
    server.stopping.set()  # it lets go, and is asked for the rest
    server.stopping.clear()
    data = tmp_path / "project/data"
    options |= {"data_dir": str(data), "models_file": str(data / "models.json")}
    async with make_gateway({}, folder="second", **options) as second:
        await all_up(second, "attic", "cellar")
        pull = await seen(second, id_, "done")
        assert (pull["name"], pull["node"]) == ("tiny", "attic")
        assert entries()["tiny"]["nodes"] == ["attic"]


async def test_a_pull_ends_with_its_node(
    running: Running, machines: Machines, server: HubServer
) -> None:
    server.holds = [1000]
    id_ = await begun(running, NAME, node="cellar")
    await seen(running, id_, "downloading")
    await machines.lose("cellar")
    pull = await seen(running, id_, "failed")
    assert pull["error"]["code"] == "node_lost"
    assert "its node 'cellar' is lost" in pull["error"]["message"]
    status, told = await running.json(
        "POST", "/admin/pulls", json={"model": NAME, "node": "cellar"}
    )
    assert (status, told["error"]["code"]) == (503, "cluster_unreachable")
    assert "the node 'cellar' is away" in told["error"]["message"]
    assert (await running.json("DELETE", f"/admin/pulls/{id_}"))[0] == 200


async def test_what_has_come_while_the_node_was_not_heard_is_entered(
    running: Running,
    machines: Machines,
    server: HubServer,
    entries: Callable[[], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.holds = [1000]
    id_ = await begun(running, NAME, node="attic", name="tiny")
    await seen(running, id_, "downloading")
    call, away = machines.call, True

    async def cut(actor: str, method: str, *arguments: Any) -> Any:
        if away and actor == "node/attic":
            raise Unreachable("ActorDiedError: cut off", final=True)
        return await call(actor, method, *arguments)

    monkeypatch.setattr(machines, "call", cut)
    server.stopping.set()  # it lets go, and is asked for the rest
    server.stopping.clear()
    assert (await seen(running, id_, "failed"))["error"]["code"] == "node_lost"
    await asyncio.to_thread(wait_until, lambda: not children(), 60, "the end of the pull")
    assert entries() == {}
    away = False
    async with asyncio.timeout(60):
        while True:
            _, told = await running.json("GET", "/admin/pulls")
            if [(one["id"], one["name"]) for one in told["pulls"]] == [(id_, "tiny")]:
                break
            await asyncio.sleep(0.05)  # what has ended tells nobody
    assert "tiny" in entries()


async def test_a_pull_ends_when_its_gateway_is_gone_for_good(
    machines: Machines, make_gateway: MakeGateway, server: HubServer, tmp_path: Path
) -> None:
    await machines.lose("attic")
    await begin(machines, "attic", orphan_after=0.4)
    server.holds = [1000]
    async with make_gateway({}, llm_storage=str(tmp_path / "LLMs"), cluster={}) as running:
        await all_up(running, "attic", "cellar")
        await seen(running, await begun(running, NAME, node="attic"), "downloading")
        pids = children()
        assert len(pids) == 1
    await asyncio.to_thread(wait_until, lambda: not alive(*pids), 20, "its end")


async def test_what_goes_wrong_is_in_the_list(
    running: Running, entries: Callable[[], dict[str, Any]]
) -> None:
    unknown = await seen(running, await begun(running, "me/unknown", node="attic"), "failed")
    assert unknown["error"]["code"] in ("not_found", "wrong_token")
    quantisation = await seen(running, await begun(running, f"{NAME}:Q9", node="attic"), "failed")
    assert "has no 'Q9'" in quantisation["error"]["message"]
    assert entries() == {}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/admin/pulls", {"model": NAME, "node": "shed"}),
        ("GET", f"/admin/hub?model={NAME}&node=shed", None),
    ],
)
async def test_an_unknown_node_is_refused(
    running: Running, method: str, path: str, body: object
) -> None:
    status, told = await running.json(method, path, **({} if body is None else {"json": body}))
    assert (status, told["error"]["code"], told["error"]["param"]) == (
        404,
        "node_not_found",
        "node",
    )
    assert "nodes that have joined: attic, cellar" in told["error"]["message"]


async def test_what_fits_is_what_fits_the_node(running: Running, machines: Machines) -> None:
    _, listed = await running.json("GET", "/admin/nodes")
    (attic,) = [one for one in listed["nodes"] if one["name"] == "attic"]
    room = attic["devices"][0]["for_models"] * 0.9 / 2**30
    status, offer = await running.json("GET", f"/admin/hub?model={NAME}&node=attic")
    assert status == 200
    assert f"there is {room:.1f} GiB" in offer["quantisations"][0]["why"]


async def test_the_command_line_has_a_node_pull(
    running: Running, entries: Callable[[], dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pull", NAME, "--node", "attic", "--url", running.url, "--key", running.key]
    assert await asyncio.to_thread(main, words) == 2  # nobody is there to choose
    out = capsys.readouterr()
    assert "QUANTISATION" in out.out
    assert await asyncio.to_thread(main, [*words, "--yes", "--name", "tiny"]) == 0
    out = capsys.readouterr()
    assert out.out.startswith(f"{NAME}, onto attic\ndone: it is the model tiny of ")
    assert entries()["tiny"]["nodes"] == ["attic"]
    words[3] = "shed"
    assert await asyncio.to_thread(main, [*words, "--yes"]) == 1
    assert "nodes that have joined: attic, cellar" in capsys.readouterr().err


async def test_without_a_cluster_there_is_no_node(make_gateway: MakeGateway) -> None:
    async with make_gateway({}) as running:
        status, told = await running.json(
            "POST", "/admin/pulls", json={"model": NAME, "node": "attic"}
        )
        assert (status, told["error"]["code"]) == (404, "node_not_found")
        assert "no cluster in gateway.yaml" in told["error"]["message"]
