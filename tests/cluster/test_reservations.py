"""What is reserved for llama-servers: each has as much as it was given, and nothing else has."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.backends.backend import State
from gateway.backends.placed import PlacedBackend
from gateway.cluster import registry
from gateway.cluster.registry import Registry
from gateway.cluster.told import reservation
from gateway.errors import GatewayError
from tests.cluster.machines import Machines, gateway_of, up
from tests.cluster.test_placing import answer, machines, own, pids
from tests.schedulers import in_state
from tests.scripted import gone

__all__ = ["machines", "own"]


async def reserved_are(machines: Machines, *names: str) -> None:
    """Wait until there are these reservations, and no others."""
    async with asyncio.timeout(10):
        while set(machines.reserved) != set(names):
            await asyncio.sleep(0.02)  # Ray tells nobody


async def test_what_is_unloaded_while_ray_is_away_ends_when_it_is_back(
    machines: Machines, own: Path
) -> None:
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",))
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic")
        await scheduler.load("a")
        (pid,) = pids(machines)
        (link,) = machines.links
        link.lose()
        await scheduler.unload("a")
        assert pids(machines) == [pid]
        link.open()
        assert await gone(pid)
        await in_state(scheduler, "a", State.STOPPED)
        assert await answer(scheduler) == 200
        assert len(machines.reserved) == len(pids(machines)) == 1


@pytest.mark.parametrize("memory", [2**30, 2**50])  # one that may only try
async def test_what_is_reserved_is_what_was_taken(
    machines: Machines, own: Path, memory: int
) -> None:
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",), memory=memory)
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic")
        await scheduler.load("a")
        backend = scheduler.backend("a")
        assert isinstance(backend, PlacedBackend)
        assert backend.held is not None
        ((_, size),) = backend.held
        assert 0 < size < 2**30
        async with asyncio.timeout(10):
            while list(machines.reserved.values()) != [{"llm:attic/RAM": size // 2**20}]:
                await asyncio.sleep(0.02)  # Ray tells nobody
        await scheduler.unload("a")
        assert machines.reserved == {}


async def test_what_is_found_again_after_its_node_was_lost_has_its_memory_again(
    machines: Machines, own: Path
) -> None:
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",))
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic")
        await scheduler.load("a")
        before, reserved = pids(machines), dict(machines.reserved)
        machines.cut_off("attic")
        await up(cluster)
        await reserved_are(machines)
        machines.reach_again("attic")
        await in_state(scheduler, "a", State.READY)
        assert await answer(scheduler) == 200
        assert (pids(machines), machines.reserved) == (before, reserved)


async def test_what_a_gateway_left_that_was_killed_before_it_ordered_anything_is_given_back(
    machines: Machines, own: Path
) -> None:
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",))
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic")
        await scheduler.load("a")
        (ours,) = machines.reserved
    gateway = ours.split("/")[0]
    others = (reservation("other", "1"), reservation(gateway, "2"))
    machines.reserved[reservation(gateway, "1")] = {"llm:attic/RAM": 64}
    machines.reserved[others[0]] = {"llm:attic/RAM": 64}
    machines.reserved[others[1]] = {"llm:cellar/RAM": 64}  # which may have its llama-server
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await in_state(scheduler, "a", State.READY)
        await reserved_are(machines, ours, *others)
        await machines.start("cellar")
        await up(cluster, "attic", "cellar")
        await reserved_are(machines, ours, others[0])


async def test_what_no_node_has_is_nobodys_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    known, names = Registry(), ["g/1", "g/2"]
    await known.announce("attic", "boot", ["g/1", "g/3"])
    assert known.unclaimed(names) == []
    monkeypatch.setattr(registry, "_UNCLAIMED", 0.0)
    assert set(known.unclaimed(names)) == {"g/1", "g/2"}
    monkeypatch.setattr(registry, "_UNCLAIMED", 60.0)
    await known.announce("attic", "boot", ["g/1"])
    assert known.unclaimed(names) == []


async def test_what_ray_has_given_to_somebody_else_is_looked_for_on_another_node(
    machines: Machines, own: Path
) -> None:
    for name in ("attic", "cellar"):
        await machines.start(name)
    spec = machines.box.spec("a", nodes=("attic", "cellar"), memory=2**30)
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        machines.full = {"attic"}
        assert await answer(scheduler) == 200
        backend = scheduler.backend("a")
        assert isinstance(backend, PlacedBackend)
        assert backend.node == "cellar"
        await scheduler.unload("a")
        machines.full = {"attic", "cellar"}
        with pytest.raises(GatewayError, match=r"cannot start 'a'.*not so much left"):
            await scheduler.load("a")
        machines.full = set()
        assert await answer(scheduler) == 200
        assert len(machines.reserved) == len(pids(machines)) == 1
