"""One process of a machine dies, and the machine goes on; or the gateway's own die."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from tests.outages.town import Town

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300, func_only=True)]


async def test_the_llama_server_dies(town: Town) -> None:
    box = await town.load("plain")
    box.kill_process("--alias plain")
    assert (await town.chat("plain"))[0] == 200
    await town.settled()
    await town.unload("plain")


async def test_the_actor_of_a_node_dies(town: Town) -> None:
    box = await town.load("plain")
    box.kill_process("ray::NodeActor")
    assert (await town.chat("plain"))[0] == 200
    await town.up("attic", "cellar")
    await town.settled()
    await town.unload("plain")


async def test_what_hangs_on_a_node_is_lost_like_the_machine(town: Town) -> None:
    box = await town.load("plain")
    box.kill_process("ray::NodeActor", signal.SIGSTOP)
    try:
        assert await town.up(town.other(box).name) < 15
        assert (await town.chat("plain"))[0] == 200
        assert (await town.model("plain"))["nodes"] == [town.other(box).name]
    finally:
        box.kill_process("ray::NodeActor", signal.SIGCONT)
    await town.up("attic", "cellar")
    await town.settled()
    await town.unload("plain")


async def test_a_node_with_far_too_much_to_do_is_not_lost(town: Town) -> None:
    box = await town.load("long")
    said = len(town.log("gateway"))
    work = [sys.executable, "-c", "while True: pass"]
    with (town.folder / "work.log").open("w") as log:
        busy = [box.start(*work, log=log, environ=os.environ) for _ in range(12)]
    try:
        async with town.stream("long") as answer:
            assert "[DONE]" in (await answer.read()).decode()
    finally:
        box.kill_process("while True: pass")
        for one in busy:
            await asyncio.to_thread(one.wait, 10)
    assert "is lost" not in town.log("gateway")[said:]
    await town.unload("long")


async def test_ray_dies_on_a_node(town: Town) -> None:
    box = await town.load("plain")
    box.kill_process("/raylet --")
    assert (await town.chat("plain"))[0] == 200
    await town.up("attic", "cellar")
    await town.settled()
    await town.unload("plain")


async def test_the_driver_of_the_gateway_dies(town: Town) -> None:
    box = await town.load("plain")
    async with town.stream("plain"):
        town.house.kill_process("gateway.cluster.driver")
        assert (await town.chat("plain"))[0] == 200
    await town.up("attic", "cellar")
    assert town.llama_servers() == [("plain", box.name)]
    await town.settled()
    await town.unload("plain")


async def test_the_gateway_is_killed_and_finds_its_llama_servers_again(town: Town) -> None:
    box = await town.load("plain")
    before = box.processes("--alias plain")
    town.house.kill_process("llm-gateway serve", signal.SIGKILL)
    await town.start_gateway()
    await town.up("attic", "cellar")
    await town.in_state("plain", "ready")
    assert (await town.chat("plain"))[0] == 200
    assert box.processes("--alias plain") == before
    await town.settled()
    await town.unload("plain")


async def test_a_gateway_killed_in_the_middle_of_a_drain_goes_on_with_it(town: Town) -> None:
    box = await town.load("slow")
    await town.drain(box.name)
    await town.until(lambda: len(town.llama_servers()) == 2)  # it is being loaded elsewhere
    town.house.kill_process("llm-gateway serve", signal.SIGKILL)
    await town.start_gateway()
    await town.up("attic", "cellar")
    await town.only_on("slow", town.other(box))
    await town.resume(box.name)
    await town.settled()
    await town.unload("slow")
