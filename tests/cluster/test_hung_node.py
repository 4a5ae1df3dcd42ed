"""A node that hangs: nothing of it answers, and nobody says so."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.backends.backend import State
from tests.cluster.machines import Machines, gateway_of, up
from tests.cluster.test_placing import machines, own, pids
from tests.scripted import gone, until

__all__ = ["machines", "own"]


async def test_a_node_that_hangs_is_lost_within_seconds(machines: Machines, own: Path) -> None:
    await machines.start("attic")
    await machines.start("cellar")
    spec = machines.box.spec("a", nodes=("attic", "cellar"))
    other = machines.box.spec("b", nodes=("attic", "cellar"))
    async with gateway_of(machines, spec, other, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        await scheduler.load("a")
        backend = scheduler.backend("a")
        assert backend is not None
        (pid,), first = pids(machines), backend.node
        assert first is not None
        machines.hang(first)
        async with asyncio.timeout(10):
            await scheduler.load("b")  # which doesn't wait for what it asks the one that hangs
        await until(
            scheduler,
            lambda: backend.state is State.READY and backend.node not in (first, None),
        )
        machines.go_on(first)
        await up(cluster, "attic", "cellar")
        assert await gone(pid)  # another has its place by now
