"""Nodes over HTTP, on the command line and in metrics, for administrators."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.cluster.cluster import Cluster
from tests.cluster.gateways import cluster_of
from tests.cluster.machines import Machines, up
from tests.harness import MakeGateway, Running, fake_model
from tests.scripted import Box

MIB = 2**20


@pytest.fixture
async def machines(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Machines]:
    made = Machines(Box(folder))
    monkeypatch.setattr("gateway.app.cluster_of", cluster_of(made))
    yield made
    await made.close()


@pytest.fixture
async def running(
    machines: Machines, make_gateway: MakeGateway, tmp_path: Path
) -> AsyncIterator[Running]:
    """A gateway with the nodes attic and cellar, and a model for either."""
    for name in ("attic", "cellar"):
        await machines.start(name)
    entry = fake_model(tmp_path)
    models = {
        "m": {**entry, "memory": 64 * MIB, "nodes": ["attic", "cellar"]},
        "here": {**entry, "nodes": "here"},
    }
    async with make_gateway(models, cluster={"placement": "spread"}) as running:
        await all_up(running, "attic", "cellar")
        yield running


async def nodes(running: Running) -> dict[str, dict[str, Any]]:
    status, told = await running.json("GET", "/admin/nodes")
    assert status == 200
    return {one["name"]: one for one in told["nodes"]}


async def all_up(running: Running, *names: str) -> None:
    """Wait until these are up, and no others."""
    cluster = running.gateway.scheduler.environment.nodes
    assert isinstance(cluster, Cluster)
    await up(cluster, *names)


async def on(running: Running, model: str) -> list[str]:
    _, told = await running.json("GET", "/admin/models")
    (found,) = [one for one in told["models"] if one["name"] == model]
    assert {device.rpartition("/")[0] or "here" for device in found["memory_on"]} <= {
        *found["nodes"]
    }
    return list(found["nodes"])


async def test_nodes_are_listed_with_what_they_have_and_run(running: Running) -> None:
    _, told = await running.json("GET", "/admin/nodes")
    assert told["cluster"] == {
        "engine": "ray",
        "address": "auto",
        "placement": "spread",
        "problem": None,
    }
    assert await on(running, "m") == []
    assert (await running.chat("m"))[0] == 200
    assert (await running.chat("here"))[0] == 200
    (where,) = await on(running, "m")
    assert await on(running, "here") == ["here"]
    there = (await nodes(running))[where]
    assert there["models"] == ["m"]
    assert (there["up"], there["drained"], there["problem"]) == (True, False, None)
    assert "llama-server" in there["no_rpc"]  # the scripted one has none
    (device,) = there["devices"]
    assert device["name"] == "RAM"
    assert 0 < device["for_models"] <= device["total"]
    for path in ("/admin/models", "/admin/status"):
        assert {one["name"] for one in (await running.json("GET", path))[1]["nodes"]} == {
            "attic",
            "cellar",
        }


async def test_a_drained_node_is_left_and_may_be_used_again(running: Running) -> None:
    assert (await running.chat("m"))[0] == 200
    (before,) = await on(running, "m")
    status, told = await running.json("POST", f"/admin/nodes/{before}/drain")
    assert (status, told["drained"]) == (200, True)

    async with asyncio.timeout(20):
        while await on(running, "m") in ([], [before]):
            await asyncio.sleep(0.02)  # nobody is told over HTTP
    assert (await running.chat("m"))[0] == 200
    status, told = await running.json("POST", f"/admin/nodes/{before}/resume")
    assert (status, told["drained"]) == (200, False)


async def test_a_removed_node_is_forgotten(running: Running) -> None:
    status, told = await running.json("DELETE", "/admin/nodes/cellar")
    assert (status, told["name"]) == (200, "cellar")
    assert (await nodes(running)).keys() == {"attic"}
    status, told = await running.json("DELETE", "/admin/nodes/cellar")
    assert (status, told["error"]["code"]) == (404, "node_not_found")
    assert "nodes that have joined: attic" in told["error"]["message"]


async def test_who_has_no_cluster_has_no_nodes(make_gateway: MakeGateway) -> None:
    async with make_gateway({}) as running:
        assert await running.json("GET", "/admin/nodes") == (200, {"cluster": None, "nodes": []})
        status, told = await running.json("POST", "/admin/nodes/attic/drain")
        assert (status, told["error"]["code"]) == (404, "node_not_found")
        assert "no cluster in gateway.yaml" in told["error"]["message"]


async def test_metrics_tell_of_nodes(running: Running, machines: Machines) -> None:
    await machines.lose("cellar")
    await all_up(running, "attic")
    assert (await running.chat("m"))[0] == 200
    async with running.request("GET", "/metrics") as response:
        lines = (await response.text()).splitlines()
    weight = 'llm_gateway_model_memory_bytes{device="attic/RAM",model="m"}'
    assert any(line.startswith(f"{weight} ") for line in lines)
    assert 'llm_gateway_node_up{node="attic"} 1.0' in lines
    assert 'llm_gateway_node_up{node="cellar"} 0.0' in lines
    sizes = [line for line in lines if line.startswith("llm_gateway_node_memory_")]
    assert {line.partition("{")[2].partition("}")[0] for line in sizes} == {
        'device="RAM",node="attic"'
    }
    assert len(sizes) == 2


async def test_nodes_on_the_command_line(
    running: Running, machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (await running.chat("m"))[0] == 200
    (where,) = await on(running, "m")

    async def told(*words: str) -> str:
        given = [*words, "--url", running.url, "--key", running.key]
        assert await asyncio.to_thread(main, ["node", *given]) == 0
        return capsys.readouterr().out

    assert f"{where} takes no more models; m will leave it" in await told("drain", where)
    listed = (await told("list")).splitlines()
    assert listed[0].split() == ["NODE", "STATE", "ADDRESS", "FOR", "MODELS", "RUNS"]
    states = {line.split()[0]: line.split()[1] for line in listed[1:]}
    assert states == {"attic": "up", "cellar": "up", where: "drained"}
    assert f"{where} takes models again" in await told("resume", where)
    await machines.lose("cellar")
    await all_up(running, "attic")
    listed = (await told("list")).splitlines()
    assert [line.split()[1] for line in listed if line.startswith("cellar ")] == ["away"]
    assert any(line.startswith("cellar: ") for line in listed)
    assert "cellar is removed" in await told("remove", "cellar")
    found = json.loads(await told("list", "--json"))
    assert [one["name"] for one in found["nodes"]] == ["attic"]
