"""The machine of a model goes, killed or without a word, in each phase of the model's life.

What is asked next is answered by the other machine, and no more than one answer is lost: that of
which something was sent already.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from gateway.tasks import spawn
from tests.outages.asked import NODES
from tests.outages.boxes import Box
from tests.outages.town import Town

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(300, func_only=True),
    pytest.mark.parametrize("how", ["killed", "without power"]),
]


@asynccontextmanager
async def going(town: Town, box: Box, how: str, model: str) -> AsyncIterator[None]:
    """Have a machine go; afterwards the other one answers for ``model``, and it comes back."""
    await asyncio.to_thread(box.kill if how == "killed" else box.cut_power)
    try:
        yield
        await town.up(*(set(NODES) - {box.name}))
        status, answer = await town.chat(model)
        assert status == 200, answer
        assert (await town.model(model))["nodes"] == [town.other(box).name]
        await town.settled()
    finally:
        await town.join(box)
        await town.unload(model)


async def place_on(town: Town, name: str) -> None:
    """Have the next model go to this node."""
    for node in NODES:
        await (town.resume(node) if node == name else town.drain(node))


async def test_while_it_prepares(town: Town, how: str) -> None:
    await place_on(town, "attic")
    box = await town.load("plain")  # what it needs there is known from now on
    await town.unload("plain")
    box.kill_process("ray::NodeActor", signal.SIGSTOP)
    asked = spawn(town.chat("plain"), name="beside the test")
    await town.in_state("plain", "starting")
    await town.resume("cellar")
    async with going(town, box, how, "plain"):
        assert (await asked)[0] == 200


async def test_while_it_loads(town: Town, how: str) -> None:
    await place_on(town, "attic")
    asked = spawn(town.chat("slow"), name="beside the test")
    await town.in_state("slow", "starting")
    await town.server("slow")
    await town.resume("cellar")
    async with going(town, town.nodes["attic"], how, "slow"):
        assert (await asked)[0] == 200


async def test_while_it_is_idle(town: Town, how: str) -> None:
    box = await town.load("plain")
    async with going(town, box, how, "plain"):
        assert (await town.chat("plain"))[0] == 200


async def test_in_the_middle_of_a_stream(town: Town, how: str) -> None:
    box = await town.load("long")
    async with town.stream("long") as answer:
        await answer.readline()
        async with going(town, box, how, "long"):
            with pytest.raises(aiohttp.ClientPayloadError):  # it ends as broken
                await answer.read()


async def test_before_the_first_byte_of_an_answer(town: Town, how: str) -> None:
    box = await town.load("plain")
    box.kill_process("--alias plain", signal.SIGSTOP)
    asked = spawn(town.chat("plain"), name="beside the test")
    await town.busy("plain")
    async with going(town, box, how, "plain"):
        assert (await asked)[0] == 200


async def test_while_it_drains(town: Town, how: str) -> None:
    box = await town.load("long")
    async with town.stream("long") as answer:
        await answer.readline()
        unloading = spawn(town.unload("long"), name="beside the test")
        await town.in_state("long", "draining")
        async with going(town, box, how, "long"):
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
            await unloading


async def test_while_it_stops(town: Town, how: str) -> None:
    box = await town.load("stubborn")
    unloading = spawn(town.unload("stubborn"), name="beside the test")
    await town.in_state("stubborn", "stopping")
    async with going(town, box, how, "stubborn"):
        await unloading
