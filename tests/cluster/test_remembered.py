"""Nodes that a gateway has known are listed after its restart, until they are removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cluster.cluster import Cluster
from gateway.cluster.registry import Registry
from gateway.cluster.remembered import Known, Remembered
from tests.cluster.machines import Machines, gateway_of, up
from tests.cluster.test_placing import answer, machines, own
from tests.harness import eventually

__all__ = ["machines", "own"]


def listed(cluster: Cluster) -> dict[str, bool]:
    return {status.name: status.up for status in cluster.report()}


async def test_a_node_that_is_off_is_listed_after_a_restart_until_it_is_removed(
    machines: Machines, own: Path
) -> None:
    for name in ("attic", "cellar"):
        await machines.start(name)
    async with gateway_of(machines, folder=own) as (_, cluster):
        await up(cluster, "attic", "cellar")
    await machines.lose("cellar")
    machines.registry = Registry()  # the head was restarted, too: it knows who announces itself
    await machines.registry.announce("attic", machines.nodes["attic"].boot)
    spec = machines.box.spec("a")
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic")
        assert listed(cluster) == {"attic": True, "cellar": False}
        (cellar,) = [status for status in cluster.report() if status.name == "cellar"]
        assert (cellar.host, bool(cellar.version)) == ("127.0.0.1", True)
        await eventually(lambda: "gone" in (_problem(cluster) or ""), "it says why")
        assert await answer(scheduler) == 200  # nothing waits for it
        await cluster.remove("cellar")
        assert listed(cluster) == {"attic": True}
    async with gateway_of(machines, folder=own) as (_, cluster):
        await up(cluster, "attic")
        assert listed(cluster) == {"attic": True}


def _problem(cluster: Cluster) -> str | None:
    return next(status.problem for status in cluster.report() if status.name == "cellar")


async def test_one_that_comes_back_is_used_again(machines: Machines, own: Path) -> None:
    await machines.start("attic")
    async with gateway_of(machines, folder=own) as (_, cluster):
        await up(cluster, "attic")
    await machines.lose("attic")
    spec = machines.box.spec("a", nodes=("attic",))
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await eventually(lambda: cluster.head_problem is None, "the head answers")
        assert listed(cluster) == {"attic": False}
        await machines.start("attic")
        await up(cluster, "attic")
        assert await answer(scheduler) == 200


@pytest.mark.parametrize("off", [False, True])
async def test_others_hear_of_the_removal_of_a_node_that_the_head_does_not_know(
    machines: Machines, own: Path, tmp_path: Path, off: bool
) -> None:
    """``off``: the other gateway doesn't run meanwhile."""
    other = tmp_path / "other"
    await machines.start("attic")
    async with (
        gateway_of(machines, folder=own) as (_, cluster),
        gateway_of(machines, folder=other) as (_, second),
    ):
        await up(cluster, "attic")
        await up(second, "attic")
        await machines.lose("attic")
        machines.registry, before = Registry(), machines.registry
        await before.drain("nobody", "attic", True)  # ends the questions under way
        if not off:
            await cluster.remove("attic")
            await eventually(lambda: listed(second) == {}, "the other one forgets it, too")
    if off:
        async with gateway_of(machines, folder=own) as (_, cluster):
            await cluster.remove("attic")
        async with gateway_of(machines, folder=other) as (_, second):
            await eventually(lambda: listed(second) == {}, "the other one forgets it, too")


@pytest.mark.parametrize("text", ["{", "[]", '{"attic": 1}', '{"attic": {"host": "x"}}'])
async def test_a_file_that_is_none_counts_as_empty(tmp_path: Path, text: str) -> None:
    file = tmp_path / "nodes.json"
    file.write_text(text)
    assert Remembered(file).load() == {}
    known = {"attic": Known("boot", "10.0.0.2", "1")}
    await Remembered(file).keep(known)
    assert Remembered(file).load() == known


async def test_a_file_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    kept, known = Remembered(folder / "nodes.json"), {"attic": Known("boot", "10.0.0.2", "1")}
    await kept.keep(known)
    assert not folder.exists()
    folder.mkdir()
    await kept.keep(known)
    assert Remembered(folder / "nodes.json").load() == known
