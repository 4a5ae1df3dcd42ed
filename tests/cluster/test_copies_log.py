"""The log of a model with copies: what each of them writes, also when one takes another's place."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from gateway.cluster.told import Logged
from tests.cluster.machines import Machines, gateway_of, up
from tests.cluster.test_placing import copied, machines, own, pids
from tests.scripted import until

__all__ = ["machines", "own"]


async def test_what_a_copy_writes_is_shown_when_it_takes_the_place_of_another(
    machines: Machines, own: Path
) -> None:
    await machines.start("attic")
    await machines.start("cellar")
    spec = machines.box.spec("a", nodes=("attic", "cellar"), replicas=2)
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        backend = await copied(scheduler, 2)
        first, (other,) = backend.where, {"attic", "cellar"} - {backend.where}
        (run,) = [run for node in cluster.nodes if node.name == other for run in node.runs]
        following = backend.shown_log.follow(backlog=1000)

        async def next_with(words: str) -> str:
            async for line in following:
                if words in line:
                    return line
            raise AssertionError

        run.hear(Logged(run.order.server, ("before",)))
        assert await next_with("before") == f"{other}: before"
        os.kill(pids(machines)[0], signal.SIGKILL)
        await until(scheduler, lambda: backend.where == other)
        run.hear(Logged(run.order.server, ("afterwards",)))
        assert (await next_with("afterwards")).endswith("afterwards")
        # What looks into the first copy's log, for hangs, looks into that of the one that it is.
        assert backend.log.last == "afterwards"
        # A further one is told from it.
        await until(scheduler, lambda: backend.copies == 2)
        run.hear(Logged(run.order.server, ("with another",)))
        assert await next_with("with another") == f"{other}: with another"
        await following.aclose()
        shown = backend.shown_log.tail()
        assert [line for line in shown if "--- start" in line][1:] == [
            f"{other}: --- start 1 of a ---",
            f"{first}: --- start 1 of a ---",
        ]


async def test_what_one_llama_server_writes_is_shown_as_it_is(
    machines: Machines, own: Path
) -> None:
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",))
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic")
        backend = await copied(scheduler, 1)
        assert "fake llama-server starts" in backend.shown_log.tail()
        assert backend.shown_log.tail() == backend.log.tail()


async def test_two_copies_on_one_machine_are_told_apart(machines: Machines, own: Path) -> None:
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",), replicas=2)
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic")
        backend = await copied(scheduler, 2)
        for node in cluster.nodes:
            for run in node.runs:
                run.hear(Logged(run.order.server, ("hello",)))
        last = {line for line in backend.shown_log.tail() if line.endswith("hello")}
        assert last == {"attic (1): hello", "attic (2): hello"}
