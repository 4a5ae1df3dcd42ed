"""Models on nodes: placed, used, moved, lost, found again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.backends.backend import State
from gateway.backends.replicated import ReplicatedBackend
from gateway.backends.scheduler import Scheduler
from gateway.tasks import spawn
from gateway.upstream import UpstreamRequest
from tests.cluster.machines import Machines, gateway_of, up
from tests.schedulers import in_state, states
from tests.scripted import Box, alive, gone, until

JSON = b"Content-Type: application/json\r\n"


@pytest.fixture
async def machines(folder: Path) -> AsyncIterator[Machines]:
    box = Box(folder)
    made = Machines(box)
    yield made
    await made.close()
    assert box.alive() == []


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The folder of a gateway's cluster."""
    return tmp_path / "cluster"


async def answer(scheduler: Scheduler, model: str = "a") -> int:
    """The status of a request to ``model``, as its lease sends it."""
    with await scheduler.lease(model) as lease:
        fetched = await lease.backend.pool.fetch(UpstreamRequest("GET", "/health"), timeout=10)
        return fetched.status


def pids(machines: Machines) -> list[int]:
    return [start["pid"] for start in machines.box.starts() if alive(start["pid"])]


async def test_a_model_runs_on_the_node_that_its_entry_names(machines: Machines, own: Path) -> None:
    await machines.start("attic")
    await machines.start("cellar")
    spec = machines.box.spec("a", nodes=("cellar",), memory=64 * 2**20)
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        assert await answer(scheduler) == 200
        backend = scheduler.backend("a")
        assert backend is not None
        assert (backend.node, backend.pid) == ("cellar", None)
        assert [s.servers for s in cluster.report()] == [(), ("a",)]
        (reserved,) = machines.reserved.values()
        assert list(reserved) == ["llm:cellar/RAM"]
        await scheduler.unload("a")
        assert (pids(machines), machines.reserved) == ([], {})
        assert backend.node is None


async def test_its_log_comes_with_what_it_writes(machines: Machines, own: Path) -> None:
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",))
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic")
        await scheduler.load("a")
        backend = scheduler.backend("a")
        assert backend is not None
        first, *rest = backend.log.tail()
        assert first == "--- start 1 of a ---"
        assert rest


async def test_one_that_dies_is_started_again(machines: Machines, own: Path) -> None:
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",))
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic")
        await scheduler.load("a")
        (pid,) = pids(machines)
        os.kill(pid, signal.SIGKILL)
        await in_state(scheduler, "a", State.BACKOFF)
        backend = scheduler.backend("a")
        assert backend is not None
        assert backend.deaths == 1
        assert "SIGKILL" in str(backend.last_error)
        assert await answer(scheduler) == 200
        assert pids(machines) != [pid]


async def test_a_load_that_fails_says_why(machines: Machines, own: Path) -> None:
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",), exit=3)
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic")
        with pytest.raises(Exception, match="status 3"):
            await scheduler.load("a")
        assert machines.reserved == {}


async def test_a_lost_node_leaves_its_models_to_others(machines: Machines, own: Path) -> None:
    await machines.start("attic")
    await machines.start("cellar")
    spec = machines.box.spec("a", nodes=("attic", "cellar"))
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        await scheduler.load("a")
        backend = scheduler.backend("a")
        assert backend is not None
        first = backend.node
        assert first is not None
        await machines.lose(first)
        await until(
            scheduler,
            lambda: backend.state is State.READY and backend.node not in (first, None),
        )
        assert await answer(scheduler) == 200
        assert {backend.node, first} == {"attic", "cellar"}
        assert [s.problem is None for s in cluster.report()].count(False) == 1


async def test_a_node_that_comes_back_is_used_again(machines: Machines, own: Path) -> None:
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",))
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic")
        await scheduler.load("a")
        await machines.lose("attic")
        await up(cluster)
        await machines.start("attic")
        assert await answer(scheduler) == 200


async def test_the_next_gateway_finds_what_this_one_has_left(machines: Machines, own: Path) -> None:
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",))
    other = machines.box.spec("b", nodes=("attic",))
    async with gateway_of(machines, spec, other, folder=own) as (scheduler, cluster):
        await up(cluster, "attic")
        await scheduler.load("a")
        await scheduler.load("b")
        before = pids(machines)
    assert pids(machines) == before
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await in_state(scheduler, "a", State.READY)
        assert await answer(scheduler) == 200
        kept, ended = before
        assert await gone(ended)  # it is in models.json no more
        assert pids(machines) == [kept]
        await scheduler.unload("a")
        assert await gone(kept)


async def test_a_gateway_with_a_new_authority_is_let_in(machines: Machines, own: Path) -> None:
    """The old one's files are gone; its identity is still there."""
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",))
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic")
        assert await answer(scheduler) == 200
        before = pids(machines)
    for file in own.glob("ca-*.pem"):
        file.unlink()
    async with gateway_of(machines, spec, folder=own) as (scheduler, _):
        await in_state(scheduler, "a", State.READY)
        assert await answer(scheduler) == 200
        assert pids(machines) == before


async def test_what_no_gateway_asks_for_any_more_ends(machines: Machines, own: Path) -> None:
    await machines.start("attic", orphan_after=0.5)
    spec = machines.box.spec("a", nodes=("attic",))
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic")
        await scheduler.load("a")
        (pid,) = pids(machines)
    assert await gone(pid)


async def test_a_node_that_is_lost_in_a_load_leaves_that_to_another(
    machines: Machines, own: Path
) -> None:
    await machines.start("attic")
    await machines.start("cellar")
    spec = machines.box.spec("a", nodes=("attic", "cellar"), start_delay=1.0)
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        asked = spawn(answer(scheduler), name="ask")
        backend = scheduler.backend("a")
        assert backend is not None
        async with asyncio.timeout(10):
            while not pids(machines):
                await asyncio.sleep(0.02)
        first = backend.node
        assert first is not None
        await machines.lose(first)
        assert await asked == 200
        assert {backend.node, first} == {"attic", "cellar"}
        assert len(machines.reserved) == 1


async def test_everything_goes_on_while_the_head_is_away(machines: Machines, own: Path) -> None:
    await machines.start("attic")
    spec = machines.box.spec("a", nodes=("attic",))
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic")
        await scheduler.load("a")
        machines.head_is_away = True
        await machines.registry.announce("other", "boot")  # ends the question under way
        async with asyncio.timeout(5):
            while cluster.head_problem is None:
                await asyncio.sleep(0.02)
        assert await answer(scheduler) == 200
        assert states(scheduler) == {"a": "ready"}
        machines.head_is_away = False
        async with asyncio.timeout(5):
            while cluster.head_problem is not None:
                await asyncio.sleep(0.02)


# --- copies --------------------------------------------------------------------------------------


def nodes_of(scheduler: Scheduler) -> list[str | None]:
    backend = scheduler.backend("a")
    assert isinstance(backend, ReplicatedBackend)
    return sorted(backend.nodes, key=str)


async def copied(scheduler: Scheduler, count: int) -> ReplicatedBackend:
    """Load a model and wait until so many copies take requests."""
    await scheduler.load("a")
    backend = scheduler.backend("a")
    assert isinstance(backend, ReplicatedBackend)
    await until(scheduler, lambda: backend.copies == count)
    return backend


async def test_copies_run_on_different_nodes_and_share_the_requests(
    machines: Machines, own: Path
) -> None:
    await machines.start("attic")
    await machines.start("cellar")
    spec = machines.box.spec("a", nodes=("attic", "cellar"), replicas=2)
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        await copied(scheduler, 2)
        assert nodes_of(scheduler) == ["attic", "cellar"]
        one, two = await scheduler.lease("a"), await scheduler.lease("a")
        assert one.backend is two.backend
        one.release()
        two.release()
        assert [await answer(scheduler) for _ in range(4)] == [200] * 4
        assert len(machines.reserved) == len(pids(machines)) == 2
        await scheduler.unload("a")
        assert (pids(machines), machines.reserved) == ([], {})


async def test_where_one_copy_dies_the_model_stays_ready(machines: Machines, own: Path) -> None:
    await machines.start("attic")
    await machines.start("cellar")
    spec = machines.box.spec("a", nodes=("attic", "cellar"), replicas=2)
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        backend = await copied(scheduler, 2)
        states = list[State]()
        scheduler.subscribe(lambda: states.append(backend.state))
        for _ in range(2):
            before = set(pids(machines))
            os.kill(before.pop(), signal.SIGKILL)
            await until(scheduler, lambda: backend.copies == 1)
            assert await answer(scheduler) == 200
            await until(scheduler, lambda: backend.copies == 2)
        assert set(states) == {State.READY}
        assert len(machines.reserved) == len(pids(machines)) == 2


async def test_a_request_passes_by_a_copy_that_was_not_there_for_another(
    machines: Machines, own: Path
) -> None:
    await machines.start("attic")
    await machines.start("cellar")
    spec = machines.box.spec("a", nodes=("attic", "cellar"), replicas=2, parallel=2)
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        several = (await copied(scheduler, 2)).several
        leases = [await scheduler.lease("a") for _ in range(4)]
        first, second = (lease.choose(several, ()) for lease in leases[:2])
        assert first is not second
        await asyncio.wait_for(first.suspect(refused=True), 0.5)
        assert [lease.choose(several, ()) for lease in leases[2:]] == [second] * 2
        assert (first.in_flight, second.in_flight) == (1, 3)
        for lease in leases:
            lease.release()
        assert (first.in_flight, second.in_flight) == (0, 0)


async def test_where_a_node_is_lost_its_copy_goes_to_another(machines: Machines, own: Path) -> None:
    for name in ("attic", "cellar", "garage"):
        await machines.start(name)
    spec = machines.box.spec("a", replicas=2, nodes=("attic", "cellar", "garage"))
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar", "garage")
        backend = await copied(scheduler, 2)
        lost = backend.node
        assert lost is not None
        await machines.lose(lost)
        await until(scheduler, lambda: backend.copies == 2 and lost not in backend.nodes)
        assert backend.state is State.READY
        assert await answer(scheduler) == 200


async def test_copies_are_found_again(machines: Machines, own: Path) -> None:
    await machines.start("attic")
    await machines.start("cellar")
    spec = machines.box.spec("a", nodes=("attic", "cellar"), replicas=2)
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        await copied(scheduler, 2)
        before = pids(machines)
    assert pids(machines) == before
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, "attic", "cellar")
        await copied(scheduler, 2)
        assert pids(machines) == before
        await scheduler.unload("a")
        assert pids(machines) == []
