"""Copies of one model on nodes: one alone makes room, or goes because it is idle."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.backend import State
from gateway.backends.replicated import ReplicatedBackend
from gateway.backends.scheduler import Scheduler
from gateway.errors import GatewayError
from gateway.tasks import spawn
from gateway.upstream import UpstreamRequest
from tests.cluster.machines import Machines, gateway_of, up
from tests.cluster.test_placing import JSON, answer, copied, pids
from tests.scripted import Box, until

MIB = 2**20
#: Of which a node has no room for two.
BIG: dict[str, Any] = {"memory": 16_000 * MIB, "vram": 16_000}


async def start_with_gpu(
    machines: Machines, name: str, monkeypatch: pytest.MonkeyPatch, *, size: int = 24_000
) -> None:
    """Start a machine with a GPU of so many MiB."""
    folder = machines.box.folder / f"gpus-{name}"
    folder.mkdir()
    (folder / "gpus").write_text(json.dumps({"CUDA0": ["NVIDIA X", size, 0]}))
    monkeypatch.setenv("FAKE_GPUS", str(folder / "gpus"))  # a node takes it over when it starts
    await machines.start(name)


@pytest.fixture
async def machines(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Machines]:
    made = Machines(Box(folder))
    for name in ("attic", "cellar"):
        await start_with_gpu(made, name, monkeypatch)
    yield made
    await made.close()
    assert pids(made) == []


def backend_of(scheduler: Scheduler, model: str) -> ReplicatedBackend:
    backend = scheduler.backend(model)
    assert isinstance(backend, ReplicatedBackend)
    return backend


@pytest.mark.parametrize("node", ["attic", "cellar"])
async def test_a_copy_makes_room_and_the_model_stays_ready(
    machines: Machines, tmp_path: Path, node: str
) -> None:
    spec = machines.box.spec("a", nodes=("attic", "cellar"), replicas=2, **BIG)
    other = machines.box.spec("b", nodes=(node,), **BIG)
    async with gateway_of(machines, spec, other, folder=tmp_path) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        backend = await copied(scheduler, 2)
        states = list[State]()
        scheduler.subscribe(lambda: states.append(backend.state))
        assert await answer(scheduler, "b") == 200
        assert backend_of(scheduler, "b").nodes == (node,)
        (stayed,) = {"attic", "cellar"} - {node}
        assert backend.nodes == (stayed,)
        assert {*states} == {State.READY}
        assert await answer(scheduler) == 200
        # As soon as there is room, there are two again.
        await scheduler.unload("b")
        await until(scheduler, lambda: backend.copies == 2)


async def test_a_busy_copy_ends_when_its_answer_is_there(
    machines: Machines, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    box = machines.box
    spec = box.spec("a", nodes=("attic", "cellar"), replicas=2, **BIG, chunks=3, gate=gate)
    other = box.spec("b", nodes=("attic",), **BIG)
    limits: dict[str, Any] = {"patience": 0.1, "first_turn": 0.1, "longest_wait": 0.1}
    async with gateway_of(machines, spec, other, folder=tmp_path / "c", **limits) as (
        scheduler,
        cluster,
    ):
        await up(cluster, "attic", "cellar")
        backend = await copied(scheduler, 2)
        (replica,) = [one for one in backend.several.replicas if one.node == "attic"]
        leases = [await scheduler.lease("a") for _ in range(2)]
        found = {lease.choose(backend.several, ()): lease for lease in leases}
        request = UpstreamRequest("POST", "/v1/chat/completions", JSON, b'{"stream": true}')
        asked = spawn(replica.pool.fetch(request, timeout=30), name="a long answer")
        waiting = spawn(answer(scheduler, "b"), name="who needs its place")
        await until(scheduler, lambda: backend.copies == 1)
        assert not asked.done()
        assert not waiting.done()
        number = os.open(gate, os.O_RDWR)
        fetched = await asked
        os.close(number)
        assert b"[DONE]" in fetched.body
        for lease in found.values():
            lease.release()
        assert await waiting == 200
        assert backend.nodes == ("cellar",)


async def test_what_a_drained_node_still_answers_takes_no_slot_elsewhere(
    machines: Machines, tmp_path: Path
) -> None:
    spec = machines.box.spec("a", nodes=("attic", "cellar"))
    async with gateway_of(machines, spec, folder=tmp_path) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        backend = await copied(scheduler, 1)
        first = await scheduler.lease("a")
        left = first.choose(backend.several, ())
        assert left.node is not None
        second = spawn(scheduler.lease("a"), name="who waits while the model moves")
        await cluster.drain(left.node)
        found = await second  # though the one before it is still being answered
        assert found.choose(backend.several, ()).node not in (left.node, None)
        first.release()
        assert scheduler.try_lease("a") is None  # its slot was not one of those there
        found.release()


async def test_a_copy_that_idles_goes_and_comes_back_when_it_is_needed(
    machines: Machines, tmp_path: Path
) -> None:
    spec = machines.box.spec("a", nodes=("attic", "cellar"), replicas=2, ttl=3.0)
    async with gateway_of(machines, spec, folder=tmp_path) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        backend = await copied(scheduler, 2)
        lease = await scheduler.lease("a")
        used = lease.choose(backend.several, ())
        await until(scheduler, lambda: backend.copies == 1)
        assert backend.several.replicas == (used,)
        # No other comes as long as that is enough.
        second = spawn(scheduler.lease("a"), name="who needs another one")
        await until(scheduler, lambda: backend.copies == 2)
        (await second).release()
        lease.release()
        await until(scheduler, lambda: backend.state is State.STOPPED)


async def test_where_memory_ran_out_a_model_is_not_tried_again_while_another_fits(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await start_with_gpu(machines, "garage", monkeypatch, size=48_000)
    # It takes more than anybody knew.
    spec = machines.box.spec("a", nodes=("attic", "garage"), memory=16_000 * MIB, vram=26_000)
    async with gateway_of(machines, spec, folder=tmp_path) as (scheduler, cluster):
        await up(cluster, "attic", "cellar", "garage")
        assert await answer(scheduler) == 200
        assert backend_of(scheduler, "a").node == "garage"
        assert len(machines.box.starts("a")) == 2
        await scheduler.unload("a")
        assert await answer(scheduler) == 200
        assert backend_of(scheduler, "a").node == "garage"
        assert len(machines.box.starts("a")) == 3, "attic was not tried"
        await scheduler.unload("a")
        await cluster.drain("garage")
        with pytest.raises(GatewayError, match="status 1"):
            await scheduler.load("a")


async def test_no_copy_comes_where_memory_ran_out(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await start_with_gpu(machines, "garage", monkeypatch, size=64_000)
    options: dict[str, Any] = {"memory": 16_000 * MIB, "vram": 26_000, "replicas": 2}
    spec = machines.box.spec("a", nodes=("cellar", "garage"), **options)
    async with gateway_of(machines, spec, folder=tmp_path, placement="spread") as (
        scheduler,
        cluster,
    ):
        await up(cluster, "attic", "cellar", "garage")
        await scheduler.load("a")
        backend = await copied(scheduler, 2)
        assert backend.nodes == ("garage", "garage")
        # One was tried on cellar, once.
        assert (len(machines.box.starts("a")), len(pids(machines))) == (3, 2)
