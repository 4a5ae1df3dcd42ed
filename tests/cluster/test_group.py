"""Several gateways that share what runs on nodes."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from gateway.backends.backend import State
from gateway.backends.scheduler import Scheduler
from gateway.errors import GatewayError
from gateway.tasks import spawn
from gateway.upstream import UpstreamRequest
from tests.cluster.machines import Machines, gateway_of, up
from tests.cluster.test_placing import JSON, answer, machines, pids
from tests.harness import eventually
from tests.schedulers import fails, in_state, states
from tests.scripted import catalog_of, until

__all__ = ["machines"]


@pytest.fixture
async def folders(tmp_path: Path, machines: Machines) -> tuple[Path, Path]:
    """The folders of two gateways with one identity: as docs say, copied from the first."""
    async with gateway_of(machines, folder=tmp_path / "one"):
        pass
    (tmp_path / "two").mkdir()
    for name in ("id", "ca-key.pem", "ca-crt.pem"):
        shutil.copy(tmp_path / "one" / name, tmp_path / "two" / name)
    return tmp_path / "one", tmp_path / "two"


def node_of(scheduler: Scheduler) -> str | None:
    backend = scheduler.backend("a")
    assert backend is not None
    return backend.node


async def test_both_use_one_llama_server(machines: Machines, folders: tuple[Path, Path]) -> None:
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",))
    one, two = folders
    async with gateway_of(machines, spec, folder=one, shared=True) as (first, cluster):
        await up(cluster, "attic")
        assert await answer(first) == 200
        assert cluster.places
        async with gateway_of(machines, spec, folder=two, shared=True) as (second, other):
            await in_state(second, "a", State.READY)
            assert not other.places
            assert await answer(second) == 200
            assert (len(pids(machines)), node_of(second)) == (1, "attic")
        assert await answer(first) == 200  # the other one has not ended it
        assert len(pids(machines)) == 1


async def test_the_gateway_that_places_loads_what_the_other_wants(
    machines: Machines, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A load takes longer than the registry lets anybody wait for one answer.
    monkeypatch.setattr("gateway.cluster.registry._WAIT", 0.05)
    await machines.start("attic")
    specs = machines.box.spec("a", nodes=("attic",)), machines.box.spec("bad", exit=3)
    one, two = folders
    async with (
        gateway_of(machines, *specs, folder=one, shared=True) as (first, cluster),
        gateway_of(machines, *specs, folder=two, shared=True) as (second, other),
    ):
        await up(cluster, "attic")
        await up(other, "attic")
        async with asyncio.timeout(10):
            while cluster.places is other.places:
                await asyncio.sleep(0.02)
        wanting, placing = (second, first) if cluster.places else (first, second)
        assert await answer(wanting) == 200
        await in_state(placing, "a", State.READY)
        assert (len(pids(machines)), len(machines.reserved)) == (1, 1)
        assert "status 3" in (await fails(wanting.load("bad"), GatewayError)).message
        # Either may unload it: then it is gone for both.
        await wanting.unload("a")
        await in_state(placing, "a", State.STOPPED)
        assert (pids(machines), machines.reserved) == ([], {})
        assert await answer(wanting) == 200


async def test_it_ends_when_the_requests_of_both_are_over(
    machines: Machines, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",), chunks=3, gate=gate)
    one, two = folders
    async with (
        gateway_of(machines, spec, folder=one, shared=True) as (first, cluster),
        gateway_of(machines, spec, folder=two, shared=True) as (second, other),
    ):
        await up(cluster, "attic")
        await up(other, "attic")
        await first.load("a")
        await in_state(second, "a", State.READY)
        request = UpstreamRequest("POST", "/v1/chat/completions", JSON, b'{"stream": true}')
        with await second.lease("a") as lease:
            asked = spawn(lease.backend.pool.fetch(request, timeout=30), name="ask")
            while not machines.nodes["attic"].connections:
                await asyncio.sleep(0.01)
            unloading = spawn(first.unload("a"), name="unload")
            await in_state(second, "a", State.DRAINING)
            await asyncio.to_thread(gate.write_text, "")
            assert (await asked).status == 200
        await unloading
        await in_state(second, "a", State.STOPPED)
        assert pids(machines) == []


async def test_where_one_ends_the_other_places(
    machines: Machines, folders: tuple[Path, Path]
) -> None:
    await machines.start("attic")
    await machines.start("cellar")
    spec = machines.box.spec("a", nodes=("attic", "cellar"))
    one, two = folders
    async with gateway_of(machines, spec, folder=two, shared=True) as (second, other):
        async with gateway_of(machines, spec, folder=one, shared=True) as (first, _):
            await up(other, "attic", "cellar")
            await first.load("a")
            await in_state(second, "a", State.READY)
        async with asyncio.timeout(10):
            while not other.places:
                await asyncio.sleep(0.02)
        lost = node_of(second)
        assert lost is not None
        await machines.lose(lost)
        await until(second, lambda: node_of(second) not in (lost, None))
        assert await answer(second) == 200


async def test_what_one_loads_the_other_leaves_alone(
    machines: Machines, folders: tuple[Path, Path]
) -> None:
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",), start_delay=2.0)
    one, two = folders
    async with gateway_of(machines, spec, folder=one, shared=True) as (first, cluster):
        await up(cluster, "attic")
        loading = spawn(first.load("a"), name="load")
        async with asyncio.timeout(10):
            while not (started := pids(machines)):
                await asyncio.sleep(0.02)
        async with gateway_of(machines, spec, folder=two, shared=True) as (second, other):
            await up(other, "attic")
            assert await answer(second) == 200
            await loading
            assert pids(machines) == started


@pytest.mark.parametrize("when", ["before", "while it loads"])
async def test_where_one_is_gone_the_other_goes_on_with_its_load(
    machines: Machines, folders: tuple[Path, Path], when: str
) -> None:
    await machines.start("attic")
    await machines.start("cellar")
    spec = machines.box.spec("a", nodes=("attic", "cellar"), start_delay=2.0)
    one, two = folders
    async with (
        gateway_of(machines, spec, folder=one, shared=True) as (_, cluster),
        gateway_of(machines, spec, folder=two, shared=True) as (second, other),
    ):
        await up(cluster, "attic", "cellar")
        await up(other, "attic", "cellar")
        if when == "before":
            machines.links[-2].lose()  # as if it had been killed
        asked = spawn(answer(second), name="ask")
        async with asyncio.timeout(20):
            while not (started := pids(machines)):
                await asyncio.sleep(0.02)
        if when != "before":
            machines.links[-2].lose()
        assert await asked == 200
        assert pids(machines) == started


async def left(scheduler: Scheduler, node: str) -> None:
    """Wait until the model is on another node than this."""
    await until(scheduler, lambda: node_of(scheduler) not in (node, None))


async def test_a_model_that_moves_is_used_by_both_at_its_new_place(
    machines: Machines, folders: tuple[Path, Path]
) -> None:
    await machines.start("attic")
    await machines.start("cellar")
    spec = machines.box.spec("a", nodes=("attic", "cellar"))
    one, two = folders
    async with (
        gateway_of(machines, spec, folder=one, shared=True) as (first, cluster),
        gateway_of(machines, spec, folder=two, shared=True) as (second, other),
    ):
        await up(cluster, "attic", "cellar")
        await up(other, "attic", "cellar")
        await first.load("a")
        await in_state(second, "a", State.READY)
        await eventually(lambda: cluster.places or other.places, "one of them places models")
        placing = first if cluster.places else second
        seen = set[str]()
        placing.subscribe(lambda: seen.update(states(placing).values()))
        for each in (cluster, other):  # one of which doesn't place models
            before = node_of(first)
            assert before is not None
            await each.drain(before)
            for scheduler in (first, second):
                await left(scheduler, before)
                assert await answer(scheduler) == 200
            await eventually(lambda: len(pids(machines)) == 1, "the old one has ended")
            await each.resume(before)
        assert seen == {"ready"}


async def test_what_a_gateway_had_no_use_for_is_used_when_it_has(
    machines: Machines, folders: tuple[Path, Path]
) -> None:
    """Its models.json may be older than that of the other gateway for a while."""
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",))
    one, two = folders
    async with gateway_of(machines, spec, folder=one, shared=True) as (first, cluster):
        await up(cluster, "attic")
        await first.load("a")
        async with gateway_of(machines, folder=two, shared=True) as (second, other):
            await up(other, "attic")
            second.apply(catalog_of(spec))
            assert await answer(second) == 200
            assert len(pids(machines)) == 1


async def test_none_loads_models_on_its_own_machine(
    machines: Machines, folders: tuple[Path, Path]
) -> None:
    spec = machines.box.spec("a", nodes=("here",))
    async with gateway_of(machines, spec, folder=folders[0], shared=True) as (scheduler, cluster):
        await eventually(lambda: cluster.places, "it places models")
        error = await fails(scheduler.load("a", explicit=False), GatewayError)
        assert "load none on their own machine" in error.message
