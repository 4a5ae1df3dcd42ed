"""Models that span machines, with a build of llama.cpp that has RPC."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.backends.backend import State
from gateway.backends.replicated import ReplicatedBackend
from gateway.backends.scheduler import Scheduler
from gateway.cluster.cluster import Cluster
from gateway.errors import GatewayError, Unavailable
from gateway.models.local_model import LocalModel, Params
from gateway.tasks import spawn
from gateway.upstream import UpstreamError, UpstreamRequest
from tests.cluster.machines import Machines, gateway_of, up
from tests.schedulers import in_state, status
from tests.scripted import DEMO_GGUF, FAKE, Box, gone, says, until
from tests.vulkan_build import REAL, RUNS

pytestmark = [
    pytest.mark.skipif(not RUNS, reason="needs llama.cpp with RPC: llama-server-vulkan"),
    pytest.mark.slow,
]

JSON = b"Content-Type: application/json\r\n"
BOTH = ("attic", "cellar")
LLAMA_SERVER, RPC_SERVER = "llama-server", "ggml-rpc-server"


@pytest.fixture
async def machines(folder: Path) -> AsyncIterator[Machines]:
    made = Machines(Box(folder))
    yield made
    await made.close()
    assert (children(LLAMA_SERVER), children(RPC_SERVER)) == ([], [])


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The folder of a gateway's cluster."""
    return tmp_path / "cluster"


def children(name: str) -> list[int]:
    """The pids of our children that run the program ``name``."""
    found = []
    for folder in Path("/proc").glob("[1-9]*"):
        try:
            command, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--model" not in arguments and name == LLAMA_SERVER:
            continue  # it is only asked what it can do
        state, parent = rest.split()[:2]
        if (command, parent) == (name, str(os.getpid())) and state != "Z":
            found.append(int(folder.name))
    return found


async def start(machines: Machines, *names: str, program: Path = REAL) -> None:
    for name in names:
        await machines.start(name, llama_server=str(program))


async def too_big(those: Machines, **options: Any) -> LocalModel:
    """The demo model, with an entry that says that it needs more than a machine has left."""
    has = (await those.nodes["attic"].state("nobody")).has
    memory = int(1.3 * has.memory.cards[0].left)
    given: dict[str, Any] = {"memory": memory, "machines": 2, "nodes": BOTH, **options}
    return LocalModel(name="big", params=Params(model=DEMO_GGUF, ctx_size=512), **given)


def on_each(*nodes: str) -> LocalModel:
    """A small model beside which what is too big for a machine doesn't even try there."""
    params = Params(model=DEMO_GGUF, ctx_size=256)
    return LocalModel(
        name="small", params=params, memory=2**28, pinned=True, nodes=nodes, replicas=len(nodes)
    )


async def loaded_on(scheduler: Scheduler, cluster: Cluster, *nodes: str) -> None:
    """Load the small one, and wait until it is on all of them."""
    await scheduler.load("small")
    small = scheduler.backend("small")
    assert small is not None
    await until(scheduler, lambda: small.copies == len(nodes), seconds=60)


def asked(count: int = 8) -> UpstreamRequest:
    body = {"prompt": "The capital of France is", "n_predict": count, "temperature": 0}
    return UpstreamRequest("POST", "/completion", JSON, orjson.dumps(body))


async def text_of(scheduler: Scheduler) -> str:
    await scheduler.load("big")  # for as long as that takes
    with await scheduler.lease("big") as lease:
        fetched = await lease.backend.pool.fetch(asked(), timeout=60)
        assert fetched.status == 200, fetched.body
        return str(orjson.loads(fetched.body)["content"])


def backend_of(scheduler: Scheduler) -> ReplicatedBackend:
    backend = scheduler.backend("big")
    assert isinstance(backend, ReplicatedBackend)
    return backend


def servers(cluster: Cluster) -> dict[str, tuple[str, ...]]:
    return {node.name: node.servers for node in cluster.report()}


async def test_a_model_that_fits_on_no_machine_runs_on_two(machines: Machines, own: Path) -> None:
    await start(machines, *BOTH)
    spec = await too_big(machines)
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, *BOTH)
        assert "Paris" in await text_of(scheduler)
        assert servers(cluster) == {"attic": ("big",), "cellar": ("big",)}
        assert status(scheduler, "big").nodes == BOTH
        held = dict(backend_of(scheduler).held or ())
        assert held.keys() == {"attic/RAM", "cellar/RAM"}
        reserved = {name for each in machines.reserved.values() for name in each}
        assert reserved == {"llm:attic/RAM", "llm:cellar/RAM"}
        assert [len(children(name)) for name in (LLAMA_SERVER, RPC_SERVER)] == [1, 1]
        await scheduler.unload("big")
        assert [len(children(name)) for name in (LLAMA_SERVER, RPC_SERVER)] == [0, 0]
        assert machines.reserved == {}
        assert servers(cluster) == {"attic": (), "cellar": ()}


async def test_only_where_its_entry_allows_that(machines: Machines, own: Path) -> None:
    await start(machines, *BOTH)
    spec, small = await too_big(machines, machines=1), on_each(*BOTH)
    async with gateway_of(machines, spec, small, folder=own) as (scheduler, cluster):
        await up(cluster, *BOTH)
        await loaded_on(scheduler, cluster, *BOTH)
        with pytest.raises(Unavailable):
            await scheduler.load("big")
        assert children(RPC_SERVER) == []


async def test_one_that_fits_on_a_machine_stays_there(machines: Machines, own: Path) -> None:
    await start(machines, *BOTH)
    spec = await too_big(machines, memory=2**30)
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, *BOTH)
        assert "Paris" in await text_of(scheduler)
        assert children(RPC_SERVER) == []


async def test_a_machine_with_another_llama_cpp_lends_nothing(
    machines: Machines, own: Path
) -> None:
    await start(machines, "attic")
    await start(machines, "cellar", program=FAKE)
    spec, small = await too_big(machines), on_each(*BOTH)
    async with gateway_of(machines, spec, small, folder=own) as (scheduler, cluster):
        await up(cluster, *BOTH)
        await loaded_on(scheduler, cluster, *BOTH)
        with pytest.raises(Unavailable) as refused:
            await scheduler.load("big")
        assert "can lend nothing to" in (refused.value.detail or "")


async def test_an_rpc_server_that_dies_takes_the_model_with_it(
    machines: Machines, own: Path
) -> None:
    await start(machines, *BOTH)
    spec = await too_big(machines)
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, *BOTH)
        with await scheduler.lease("big") as lease:
            began = asyncio.Event()
            stop_listening = lease.backend.log.listen(began.set)
            asking = spawn(lease.backend.pool.fetch(asked(400), timeout=60), name="ask")
            await began.wait()  # it has taken the request
            stop_listening()
            (rpc_server,), (llama_server,) = children(RPC_SERVER), children(LLAMA_SERVER)
            os.kill(rpc_server, signal.SIGKILL)
            with pytest.raises(UpstreamError):
                await asking
        assert await gone(llama_server, 30)
        backend = backend_of(scheduler)
        await until(scheduler, lambda: backend.deaths == 1, seconds=30)
        assert "rpc-server" in str(backend.last_error)
        assert "SIGKILL" in str(backend.last_error)
        assert "Paris" in await text_of(scheduler)


async def test_one_that_has_nothing_to_do_notices_too(machines: Machines, own: Path) -> None:
    await start(machines, *BOTH)
    spec = await too_big(machines)
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, *BOTH)
        await scheduler.load("big")
        os.kill(children(RPC_SERVER)[0], signal.SIGKILL)
        await in_state(scheduler, "big", State.BACKOFF)
        assert "Paris" in await text_of(scheduler)


@contextlib.asynccontextmanager
async def on_two_of_three(
    machines: Machines, own: Path
) -> AsyncIterator[tuple[Scheduler, Cluster, tuple[str, str]]]:
    """A gateway whose model spans two of three machines, of which the first one leads."""
    await start(machines, *BOTH, "barn")
    spec = await too_big(machines, nodes=(*BOTH, "barn"))
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, *BOTH, "barn")
        await scheduler.load("big")
        leads = backend_of(scheduler).node
        assert leads is not None
        (helps,) = {*status(scheduler, "big").nodes} - {leads}
        yield scheduler, cluster, (leads, helps)


async def ready_without(scheduler: Scheduler, node: str) -> None:
    """Wait until the model answers, and nothing of it is on ``node``."""
    backend = backend_of(scheduler)
    await until(
        scheduler,
        lambda: backend.state is State.READY and node not in status(scheduler, "big").nodes,
        seconds=60,
    )


@pytest.mark.parametrize("which", [0, 1], ids=["that leads", "that helps"])
async def test_a_lost_machine_is_replaced(machines: Machines, own: Path, which: int) -> None:
    async with on_two_of_three(machines, own) as (scheduler, _, spans):
        await machines.lose(spans[which])
        await ready_without(scheduler, spans[which])  # by itself: nobody asks for it
        assert "Paris" in await text_of(scheduler)
        assert len(status(scheduler, "big").nodes) == 2
        assert spans[which] not in status(scheduler, "big").nodes


@pytest.mark.parametrize("which", [0, 1], ids=["that leads", "that helps"])
async def test_a_drained_machine_is_left(machines: Machines, own: Path, which: int) -> None:
    async with on_two_of_three(machines, own) as (scheduler, cluster, spans):
        await cluster.drain(spans[which])
        await ready_without(scheduler, spans[which])
        assert servers(cluster)[spans[which]] == ()
        assert "Paris" in await text_of(scheduler)
        assert backend_of(scheduler).deaths == 0


async def test_the_next_gateway_finds_all_of_it(machines: Machines, own: Path) -> None:
    await start(machines, *BOTH)
    spec = await too_big(machines)
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, *BOTH)
        await scheduler.load("big")
    before = children(LLAMA_SERVER) + children(RPC_SERVER)
    assert len(before) == 2
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, *BOTH)
        await in_state(scheduler, "big", State.READY)
        assert "Paris" in await text_of(scheduler)
        assert children(LLAMA_SERVER) + children(RPC_SERVER) == before
        assert status(scheduler, "big").nodes == BOTH
        await scheduler.unload("big")
        assert (children(LLAMA_SERVER), children(RPC_SERVER)) == ([], [])
        assert machines.reserved == {}


async def test_a_load_whose_part_ends_says_so(machines: Machines, own: Path) -> None:
    await start(machines, *BOTH)
    spec = await too_big(machines)
    async with gateway_of(machines, spec, folder=own) as (scheduler, cluster):
        await up(cluster, *BOTH)
        loading = spawn(scheduler.load("big"), name="load")
        await says(backend_of(scheduler), "Starting RPC server")
        os.kill(children(RPC_SERVER)[0], signal.SIGKILL)
        with pytest.raises(GatewayError, match="rpc-server"):
            await loading
        assert machines.reserved == {}
        assert (children(LLAMA_SERVER), children(RPC_SERVER)) == ([], [])
