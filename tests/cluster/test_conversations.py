"""Conversations in slots of real llama-servers on nodes: told apart by key, and gone on with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.replicated import ReplicatedBackend
from gateway.cluster.cluster import Cluster
from tests.cluster.gateways import cluster_of
from tests.cluster.machines import Machines, up
from tests.conversations.test_real_llama_server import ask, cache, entry, words
from tests.conversations.test_real_private import PATHS, TEMPLATE, cached, guest_of
from tests.harness import MakeGateway, Running, eventually
from tests.scripted import Box

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
async def machines(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Machines]:
    made = Machines(Box(folder))
    monkeypatch.setattr("gateway.app.cluster_of", cluster_of(made))
    for name in ("attic", "cellar"):
        await made.start(name, llama_server="auto")
    yield made
    await made.close()


async def both_up(running: Running) -> None:
    cluster = running.gateway.scheduler.environment.nodes
    assert isinstance(cluster, Cluster)
    await up(cluster, "attic", "cellar")


def on_a_node(**more: Any) -> dict[str, Any]:
    return entry(nodes=["attic", "cellar"], **more)


def backend_of(running: Running) -> ReplicatedBackend:
    backend = running.gateway.scheduler.backend("a")
    assert isinstance(backend, ReplicatedBackend)
    return backend


@pytest.mark.parametrize("parallel", [1, 2])
async def test_key_goes_on_with_nothing_that_another_one_asked(
    machines: Machines, make_gateway: MakeGateway, parallel: int
) -> None:
    model = on_a_node(parallel=parallel)
    model["params"]["ctxSize"] = 2048
    async with make_gateway({"a": model}, cluster={}, cache=cache()) as running:
        await both_up(running)
        mine, other = running.key, await guest_of(running)
        for number, path in enumerate(PATHS):
            text = f"{number} " + words(number, 60)
            found = [await cached(running, key, path, text) for key in (mine, other, other)]
            assert max(found[:2]) <= TEMPLATE, path
            assert found[2] > 50, "its own is there, so this would show what must not be"
        assert backend_of(running).node in ("attic", "cellar")


async def test_what_an_earlier_gateway_left_in_slots_is_nobodys(
    machines: Machines, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models, text, path = {"a": on_a_node()}, words(3, 60), "/v1/chat/completions"
    settings: dict[str, Any] = {"cluster": {}, "cache": cache(), "data_dir": str(tmp_path / "data")}
    async with make_gateway(models, **settings, folder="one") as running:
        await both_up(running)
        mine = running.key
        await cached(running, mine, path, text)
        name = backend_of(running).process_name
    async with make_gateway(models, **settings, folder="two") as running:
        await both_up(running)
        await eventually(lambda: backend_of(running).process_name == name, "it is found again")
        assert await cached(running, running.key, path, text) <= TEMPLATE
        assert await cached(running, running.key, path, text) > 50
        assert await cached(running, mine, path, text) > 50, "its own was saved on the node"


@pytest.mark.parametrize("parallel", [1, 2])
async def test_each_of_several_conversations_finds_its_copy_and_its_slot(
    machines: Machines, make_gateway: MakeGateway, parallel: int
) -> None:
    model = on_a_node(replicas=2, parallel=parallel)
    model["params"]["ctxSize"] = 1024 * parallel
    async with make_gateway({"a": model}, cluster={}, cache=cache()) as running:
        await both_up(running)
        await running.json("POST", "/loadModel", json={"model": "a"})
        await eventually(lambda: backend_of(running).copies == 2, "there are two copies")
        keys = [running.key, await guest_of(running)]
        talks = [
            (key, [{"role": "user", "content": f"{number} " + words(number, 60)}])
            for number, key in enumerate((*keys, *keys)[: 2 * parallel])
        ]
        for turn in range(3):
            for key, messages in talks:
                text, prompt, there = await ask(running, "a", messages, key=key)
                assert there <= TEMPLATE if turn == 0 else there > 60, (turn, prompt)
                messages += [
                    {"role": "assistant", "content": text},
                    {"role": "user", "content": "Go on."},
                ]
