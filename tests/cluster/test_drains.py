"""Nodes that are drained: models leave them, whatever happens to the gateway meanwhile."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path

from gateway.backends.backend import State
from gateway.backends.replicated import ReplicatedBackend
from gateway.errors import Unavailable
from gateway.tasks import spawn
from gateway.upstream import UpstreamRequest
from tests.cluster.machines import Machines, gateway_of, up
from tests.cluster.test_group import folders
from tests.cluster.test_placing import JSON, answer, machines, own, pids
from tests.harness import eventually
from tests.schedulers import fails, in_state, states, status
from tests.scripted import until

__all__ = ["folders", "machines", "own"]


async def test_a_drained_node_gives_up_its_models_and_takes_no_more(
    machines: Machines, own: Path
) -> None:
    await machines.start("attic")
    await machines.start("cellar")
    spec = machines.box.spec("a", nodes=("attic", "cellar"))
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        lease = await scheduler.lease("a")
        first = lease.backend.node
        assert first is not None
        await cluster.drain(first)
        backend = scheduler.backend("a")
        assert backend is not None
        await until(scheduler, lambda: backend.node not in (first, None))
        lease.release()
        assert await answer(scheduler) == 200
        assert {backend.node, first} == {"attic", "cellar"}
        (second,) = {"attic", "cellar"} - {first}
        await cluster.drain(second)
        await until(scheduler, lambda: not backend.resident)
        assert "drained" in (await fails(scheduler.lease("a"), Unavailable)).message
    async with gateway_of(machines, spec, folder=own) as (_, cluster):
        await up(cluster, "attic", "cellar")
        assert all(status.drained for status in cluster.report())
        await cluster.resume("attic")
        assert [status.drained for status in cluster.report()] == [False, True]


async def test_a_busy_model_moves_off_a_drained_node_at_once(machines: Machines, own: Path) -> None:
    await machines.start("attic")
    await machines.start("cellar")
    gate = own.with_name("gate")
    os.mkfifo(gate)
    spec = machines.box.spec("a", nodes=("attic", "cellar"), chunks=3, gate=gate)
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        await scheduler.load("a")
        backend = scheduler.backend("a")
        assert isinstance(backend, ReplicatedBackend)
        first = backend.node
        assert first is not None
        request = UpstreamRequest("POST", "/v1/chat/completions", JSON, b'{"stream": true}')
        with await scheduler.lease("a") as lease:
            asked = spawn(lease.backend.pool.fetch(request, timeout=30), name="ask")
            while not backend.pool.exchanges:
                await asyncio.sleep(0)
            await cluster.drain(first)
            await until(scheduler, lambda: backend.node not in (first, None))
            assert backend.state is State.READY
            assert len(pids(machines)) == 2  # the old one still has that request
            await asyncio.to_thread(gate.write_text, "")
            assert (await asked).status == 200
        async with asyncio.timeout(10):
            while len(pids(machines)) == 2:
                await asyncio.sleep(0.02)


async def test_the_next_gateway_goes_on_with_a_drain(machines: Machines, own: Path) -> None:
    await machines.start("attic")
    await machines.start("cellar")
    spec = machines.box.spec("a", nodes=("attic", "cellar"), start_delay=1.0)
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        await scheduler.load("a")
        (before,) = pids(machines)
        first = scheduler.status()[0].nodes[0]
        await cluster.drain(first)
        await eventually(lambda: len(pids(machines)) == 2, "it is loaded elsewhere")
    await eventually(lambda: pids(machines) == [before], "the load has ended with its gateway")
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        seen = set[str]()
        scheduler.subscribe(lambda: seen.update(states(scheduler).values()))
        await up(cluster, "attic", "cellar")
        await until(
            scheduler,
            lambda: status(scheduler, "a").nodes != (first,) and states(scheduler)["a"] == "ready",
        )
        assert "draining" not in seen  # it is used where it is until it is elsewhere
        await eventually(lambda: len(pids(machines)) == 1, "it has left the drained node")
        assert {*status(scheduler, "a").nodes, first} == {"attic", "cellar"}
        await eventually(lambda: len(machines.reserved) == 1, "what was reserved is given back")
        assert await answer(scheduler) == 200


async def test_the_gateway_that_places_next_goes_on_with_a_drain(
    machines: Machines, folders: tuple[Path, Path]
) -> None:
    await machines.start("attic")
    await machines.start("cellar")
    spec = machines.box.spec("a", nodes=("attic", "cellar"), start_delay=1.0)
    placing = AsyncExitStack()
    async with placing:
        gateway = gateway_of(machines, spec, folder=folders[0], shared=True)
        scheduler, cluster = await placing.enter_async_context(gateway)
        await up(cluster, "attic", "cellar")
        await scheduler.load("a")
        async with gateway_of(machines, spec, folder=folders[1], shared=True) as (second, _):
            await in_state(second, "a", State.READY)
            first = status(second, "a").nodes[0]
            await cluster.drain(first)
            await eventually(lambda: len(pids(machines)) == 2, "it is loaded elsewhere")
            await placing.aclose()
            await until(
                second,
                lambda: status(second, "a").nodes != (first,) and states(second)["a"] == "ready",
                seconds=30,
            )
            await eventually(lambda: len(pids(machines)) == 1, "it has left the drained node")
            assert {*status(second, "a").nodes, first} == {"attic", "cellar"}
            assert await answer(second) == 200
