"""Nodes that are removed: when that waits, when it is refused, and who forgets them."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from gateway.backends.backend import State
from gateway.cluster.cluster import Cluster
from gateway.cluster.dismissal import NodeRemoved, ends_when_removed
from gateway.cluster.link import Unreachable
from gateway.cluster.registry import Registry
from gateway.errors import Conflict
from gateway.tasks import cancel_and_wait, spawn
from tests.cluster.machines import Machines, gateway_of, up
from tests.cluster.test_placing import answer, machines, own
from tests.harness import eventually
from tests.schedulers import fails, in_state, use

__all__ = ["machines", "own"]


def names(cluster: Cluster) -> list[str]:
    return [status.name for status in cluster.report()]


async def test_two_who_remove_a_node_wait_for_the_same(machines: Machines, own: Path) -> None:
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",))
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic")
        with await scheduler.lease("a"):
            removing = [spawn(cluster.remove("attic"), name="remove") for _ in range(2)]
            await in_state(scheduler, "a", State.DRAINING)
            assert not any(one.done() for one in removing)
        await asyncio.gather(*removing)
        assert (names(cluster), machines.nodes) == ([], {})


async def test_a_node_that_is_resumed_before_it_is_empty_stays(
    machines: Machines, own: Path
) -> None:
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",))
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic")
        with await scheduler.lease("a"):
            removing = spawn(fails(cluster.remove("attic"), Conflict), name="remove")
            await in_state(scheduler, "a", State.DRAINING)
            await cluster.resume("attic")
            assert "was resumed" in (await removing).message
        assert await answer(scheduler) == 200
        assert [status.drained for status in cluster.report()] == [False]


async def test_a_node_is_not_forgotten_while_the_head_is_away(
    machines: Machines, own: Path
) -> None:
    await machines.start("attic")
    async with gateway_of(machines, folder=own) as (_, cluster):
        await up(cluster, "attic")
        machines.head_is_away = True
        error = await fails(cluster.remove("attic"), Unreachable)
        assert "remove it when the head is back" in error.message
        machines.head_is_away = False
        assert (names(cluster), list(machines.nodes)) == (["attic"], ["attic"])
        await cluster.remove("attic")
        assert names(cluster) == []


async def test_a_node_that_another_gateway_uses_is_not_removed(
    machines: Machines, own: Path, tmp_path: Path
) -> None:
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",))
    async with (
        gateway_of(machines, folder=own) as (_, cluster),
        gateway_of(machines, spec, folder=tmp_path / "other") as (scheduler, other),
    ):
        await up(cluster, "attic")
        await up(other, "attic")
        await use(scheduler)
        error = await fails(cluster.remove("attic"), Conflict)
        assert "other gateways run a on the node 'attic'" in error.message
        assert [status.drained for status in cluster.report()] == [False]
        assert await answer(scheduler) == 200
        await scheduler.unload("a")
        await cluster.remove("attic")
        # The other one forgets it, too, and knows it again when it joins again.
        await eventually(lambda: names(other) == [], "the other gateway forgets it")
        await machines.start("attic")
        await up(other, "attic")
        assert await answer(scheduler) == 200


async def test_what_a_removed_node_says_late_is_not_heard(machines: Machines, own: Path) -> None:
    node = await machines.start("attic")
    async with gateway_of(machines, folder=own) as (_, cluster):
        await up(cluster, "attic")
        boot = node.boot
        await cluster.remove("attic")
        await machines.registry.announce("attic", boot)
        assert (await machines.registry.nodes(-1)).boots == {}


async def test_who_has_joined_is_told_that_its_node_was_removed(
    machines: Machines, own: Path
) -> None:
    socket = machines.box.folder / "dismissal"
    await machines.start("attic", dismissal=socket)
    async with gateway_of(machines, folder=own) as (_, cluster):
        await up(cluster, "attic")

        async def join() -> None:
            async with ends_when_removed("attic", socket):
                await asyncio.Event().wait()

        joined = spawn(fails(join(), NodeRemoved), name="join")
        await eventually(socket.exists, "it listens")
        await cluster.remove("attic")
        assert "attic was removed from the cluster" in (await joined).message


async def test_what_a_node_does_goes_on_where_nothing_tells_of_its_end(
    machines: Machines,
) -> None:
    """A timeout of its own is what it was, and so is the end by a signal."""
    socket = machines.box.folder / "dismissal"
    with pytest.raises(TimeoutError):
        async with ends_when_removed("attic", socket), asyncio.timeout(0.01):
            await asyncio.Event().wait()
    socket.unlink()

    async def stay() -> None:
        async with ends_when_removed("attic", socket):
            await asyncio.Event().wait()

    staying = spawn(stay(), name="stay")
    await eventually(socket.exists, "it listens")
    await cancel_and_wait(staying)
    assert staying.cancelled()


async def test_a_removed_node_that_was_not_reached_hears_of_it_when_it_announces_itself(
    machines: Machines,
) -> None:
    node = await machines.start("attic")
    await machines.registry.leave("attic")
    assert await machines.registry.announce("attic", node.boot) is False
    assert await machines.registry.announce("attic", "another life of it") is True


@pytest.mark.parametrize("restarted", [False, True])
async def test_gateways_of_a_group_agree_on_what_is_drained(
    machines: Machines, tmp_path: Path, restarted: bool
) -> None:
    """Also after the head was, which keeps nothing of it."""
    await machines.start("attic")
    async with gateway_of(machines, folder=tmp_path / "one"):
        pass
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    async with (
        gateway_of(machines, folder=tmp_path / "one", shared=True) as (_, one),
        gateway_of(machines, folder=tmp_path / "two", shared=True) as (_, two),
    ):
        await up(one, "attic")
        await up(two, "attic")

        def drained() -> list[bool]:
            return [status.drained for each in (one, two) for status in each.report()]

        await one.drain("attic")
        await eventually(lambda: drained() == [True, True], "both know that it is drained")
        if restarted:
            before, machines.registry = machines.registry, Registry()
            await machines.registry.announce("attic", machines.nodes["attic"].boot)
            await before.drain("nobody", "attic", True)  # ends the questions under way
            group = (tmp_path / "one/id").read_text()

            async def told() -> frozenset[str] | None:
                return (await machines.registry.nodes(-1, group)).drained

            async with asyncio.timeout(10):
                while await told() != {"attic"}:
                    await asyncio.sleep(0.02)
            assert drained() == [True, True]
        await two.resume("attic")
        await eventually(lambda: drained() == [False, False], "both know that it is not")
