"""Entries of models on nodes that change while they run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.backends.backend import State
from gateway.backends.replicated import ReplicatedBackend
from gateway.backends.scheduler import Scheduler
from gateway.errors import GatewayError
from gateway.tasks import spawn
from tests.cluster.machines import Machines, gateway_of, up
from tests.cluster.test_placing import answer, copied, machines, own, pids
from tests.harness import eventually
from tests.schedulers import fails
from tests.scripted import catalog_of, until

__all__ = ["machines", "own"]


def places(scheduler: Scheduler) -> set[str]:
    backend = scheduler.backend("a")
    assert isinstance(backend, ReplicatedBackend)
    return {node or "here" for node in backend.nodes} if backend.state is State.READY else set()


async def only_at(scheduler: Scheduler, place: str) -> None:
    """Wait until the model is ready there, and nowhere else."""
    await until(scheduler, lambda: places(scheduler) == {place}, seconds=20)


@pytest.mark.parametrize(("before", "after"), [("attic", "cellar"), ("attic", "here")])
async def test_a_model_moves_to_where_its_entry_says(
    machines: Machines, own: Path, before: str, after: str
) -> None:
    """Without an end of its requests, and back again."""
    await machines.start("attic")
    await machines.start("cellar")
    spec = machines.box.spec("a", nodes=(before,))
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        await scheduler.load("a")
        seen = set[str]()
        scheduler.subscribe(lambda: seen.add(str(scheduler.status()[0].state)))
        for place in (after, before):
            scheduler.apply(catalog_of(replace(spec, nodes=(place,))))
            await only_at(scheduler, place)
            await eventually(lambda: len(pids(machines)) == 1, "the old one has ended")
        assert seen == {"ready"}
        assert await answer(scheduler) == 200


async def test_what_loads_where_its_entry_no_longer_says_loads_elsewhere(
    machines: Machines, own: Path
) -> None:
    await machines.start("attic")
    await machines.start("cellar")
    spec = machines.box.spec("a", nodes=("attic",), start_delay=1.0)
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        asked = spawn(answer(scheduler), name="ask")
        await eventually(lambda: pids(machines), "it loads")
        scheduler.apply(catalog_of(replace(spec, nodes=("cellar",))))
        assert await asked == 200
        assert places(scheduler) == {"cellar"}
        assert len(pids(machines)) == len(machines.reserved) == 1


async def test_a_model_whose_entry_names_no_node_that_is_there_says_so(
    machines: Machines, own: Path
) -> None:
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",))
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic")
        await scheduler.load("a")
        backend = scheduler.backend("a")
        assert backend is not None
        scheduler.apply(catalog_of(replace(spec, nodes=("attik",))))
        await until(scheduler, lambda: not backend.resident)
        error = await fails(answer(scheduler), GatewayError)
        assert "The node attik has never joined" in error.message


async def test_fewer_and_more_copies(machines: Machines, own: Path) -> None:
    await machines.start("attic")
    await machines.start("cellar")
    spec = machines.box.spec("a", nodes=("attic", "cellar"), replicas=2)
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        backend = await copied(scheduler, 2)
        scheduler.apply(catalog_of(replace(spec, replicas=1)))
        await eventually(lambda: len(pids(machines)) == 1, "one copy has ended")
        assert (backend.state, backend.copies) == (State.READY, 1)
        assert await answer(scheduler) == 200
        scheduler.apply(catalog_of(spec))
        await copied(scheduler, 2)
        assert len(pids(machines)) == len(machines.reserved) == 2


async def test_what_is_found_where_its_entry_no_longer_says_moves(
    machines: Machines, own: Path
) -> None:
    await machines.start("attic")
    await machines.start("cellar")
    spec = machines.box.spec("a", nodes=("attic",))
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        await scheduler.load("a")
    spec = replace(spec, nodes=("cellar",))
    async with gateway_of(machines, spec, folder=own) as (scheduler, _):
        await only_at(scheduler, "cellar")
        await eventually(lambda: len(pids(machines)) == 1, "the old one has ended")
