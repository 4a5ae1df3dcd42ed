"""A model that spans machines, run by llama.cpp's own RPC: what becomes of it, and of what it had
reserved, when machines of it go, are drained, or are wanted by others.
"""

from __future__ import annotations

import asyncio

import pytest

from gateway.tasks import spawn
from tests.outages.asked import NODES
from tests.outages.boxes import Box
from tests.outages.town import Town, spanning
from tests.vulkan_build import RUNS

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(300, func_only=True),
    pytest.mark.skipif(not RUNS, reason="needs llama.cpp with RPC: llama-server-vulkan"),
]


async def load(town: Town, *further: str) -> tuple[Box, Box]:
    """Load the model on both nodes; it may run on ``further`` ones from then on. Returns the one
    that leads, and the one that lends its devices.
    """
    left = await town.left_of("attic")
    await town.put("big", spanning(left, *NODES))
    machines = await answering(town)
    if further:
        await town.put("big", spanning(left, *NODES, *further))
    return machines


async def answering(town: Town) -> tuple[Box, Box]:
    """The machine that leads, and the one that lends, as soon as it answers."""
    status, answer = await town.chat("big", max_tokens=4)
    assert status == 200, answer
    boxes = {box.name: box for box in town.boxes}
    ((_, leads),) = town.llama_servers()
    (lends,) = town.rpc_servers()
    assert {leads, lends} == {*(await town.model("big"))["nodes"]}
    return boxes[leads], boxes[lends]


async def gone(town: Town) -> None:
    """Unload it; nothing of it is left."""
    await town.unload("big")
    assert (town.llama_servers(), town.rpc_servers()) == ([], [])
    await town.settled()


async def test_it_is_reserved_on_all_its_machines_until_it_ends(town: Town) -> None:
    leads, lends = await load(town)
    assert leads is not lends
    assert len(await town.reservations()) == 2
    await gone(town)
    assert await town.reservations() == []


@pytest.mark.parametrize(
    ("which", "how"),
    [(0, "without power"), (1, "killed"), (1, "without power")],
    ids=["leads, without power", "lends, killed", "lends, without power"],
)
async def test_one_of_its_machines_is_lost(town: Town, which: int, how: str) -> None:
    lost = (await load(town, "house"))[which]
    await asyncio.to_thread(lost.kill if how == "killed" else lost.cut_power)
    try:
        assert lost not in await answering(town)
        await town.settled()
    finally:
        await town.join(lost)
    await gone(town)


@pytest.mark.parametrize("which", [0, 1], ids=["leads", "lends"])
async def test_one_of_its_machines_is_drained(town: Town, which: int) -> None:
    drained = (await load(town, "house"))[which]
    async with town.stream("big", max_tokens=200) as answer:
        await answer.readline()
        await town.drain(drained.name)
        assert "[DONE]" in (await answer.read()).decode()
    assert drained not in await answering(town)
    await town.settled()
    await town.resume(drained.name)
    await gone(town)


async def test_it_makes_room_on_all_its_machines(town: Town) -> None:
    await load(town)
    await town.load("wide")  # it may only try, alone on its node
    await town.settled()
    assert ([model for model, _ in town.llama_servers()], town.rpc_servers()) == (["wide"], [])
    await town.unload("wide")


async def test_the_gateway_is_killed_and_finds_all_of_it_again(town: Town) -> None:
    leads, lends = await load(town)
    before = leads.processes(" --alias big") + lends.processes("rpc-server -H ")
    town.house.kill_process("llm-gateway serve")
    await town.start_gateway()
    await town.up(*NODES)
    await town.in_state("big", "ready")
    assert await answering(town) == (leads, lends)
    assert leads.processes(" --alias big") + lends.processes("rpc-server -H ") == before
    await town.settled()
    await gone(town)


async def test_its_rpc_server_dies_before_the_first_byte_of_an_answer(town: Town) -> None:
    _, lends = await load(town)
    asked = spawn(town.chat("big", max_tokens=400), name="beside the test")
    await town.busy("big")
    lends.kill_process("rpc-server -H ")
    status, answer = await asked
    assert status == 200, answer
    await town.settled()
    await gone(town)
