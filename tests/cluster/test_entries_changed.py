"""Entries of models.json that are others when a gateway comes back to what runs on its nodes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.cluster.machines import Machines, gateway_of, up
from tests.cluster.test_placing import answer, copied, machines, own, pids
from tests.scripted import until

__all__ = ["machines", "own"]


async def ended(machines: Machines, before: list[int]) -> None:
    """Wait until none of these lives."""
    async with asyncio.timeout(20):
        while set(before) & set(pids(machines)):
            await asyncio.sleep(0.02)  # the node tells only its gateway


async def test_what_has_other_settings_now_is_ended(machines: Machines, own: Path) -> None:
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",))
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic")
        assert await answer(scheduler) == 200
    before = pids(machines)
    changed = machines.box.spec("a", nodes=("attic",), ctx=16)
    async with gateway_of(machines, changed, folder=own) as (scheduler, cluster):
        await up(cluster, "attic")
        await ended(machines, before)
        assert await answer(scheduler) == 200
        assert len(pids(machines)) == 1


async def test_what_has_no_entry_any_more_is_ended(machines: Machines, own: Path) -> None:
    await machines.start("attic")
    async with gateway_of(machines, machines.box.spec("a", nodes=("attic",)), folder=own) as (
        scheduler,
        cluster,
    ):
        await up(cluster, "attic")
        assert await answer(scheduler) == 200
    before = pids(machines)
    async with gateway_of(machines, machines.box.spec("b"), folder=own) as (scheduler, cluster):
        await up(cluster, "attic")
        await ended(machines, before)
    assert machines.reserved == {}


async def test_what_may_not_run_there_any_more_runs_elsewhere(
    machines: Machines, own: Path
) -> None:
    for name in ("attic", "cellar"):
        await machines.start(name)
    spec = machines.box.spec("a", nodes=("attic",))
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        assert await answer(scheduler) == 200
    before = pids(machines)
    changed = machines.box.spec("a", nodes=("cellar",))
    async with gateway_of(machines, changed, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        assert await answer(scheduler) == 200
        backend = scheduler.backend("a")
        assert backend is not None
        await until(scheduler, lambda: backend.node == "cellar")
        assert await answer(scheduler) == 200
        await ended(machines, before)


async def test_what_needs_fewer_copies_gives_the_others_up(machines: Machines, own: Path) -> None:
    for name in ("attic", "cellar"):
        await machines.start(name)
    both = ("attic", "cellar")
    two = machines.box.spec("a", nodes=both, replicas=2)
    async with gateway_of(machines, two, folder=own) as (scheduler, cluster):
        await up(cluster, *both)
        await copied(scheduler, 2)
    before = pids(machines)
    async with gateway_of(machines, machines.box.spec("a", nodes=both), folder=own) as (
        scheduler,
        cluster,
    ):
        await up(cluster, *both)
        assert await answer(scheduler) == 200
        async with asyncio.timeout(20):
            while len(pids(machines)) > 1:
                await asyncio.sleep(0.02)
        assert set(pids(machines)) < set(before)
