"""A gateway is killed, and comes back as another one, or never: nothing of it stays for ever."""

from __future__ import annotations

import asyncio
import json
import signal

import aiohttp
import pytest

from gateway.tasks import spawn
from tests.outages.town import Town, scripted

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(400, func_only=True)]


async def test_what_its_models_json_has_no_more_ends(town: Town) -> None:
    for model in ("plain", "long", "demo"):
        await town.load(model)
    kept = [pid for box in town.nodes.values() for pid in box.processes("--alias demo")]
    file = town.folder / "gateway/data/models.json"
    before = file.read_text()
    entries = json.loads(before)
    del entries["plain"]
    entries["long"]["params"]["ctx_size"] = 1024
    town.house.kill_process("llm-gateway serve")
    file.write_text(json.dumps(entries))
    await town.start_gateway()
    try:
        await town.up("attic", "cellar")
        await town.in_state("demo", "ready")
        await town.settled()
        assert [model for model, _ in town.llama_servers()] == ["demo"]
        assert kept == [pid for box in town.nodes.values() for pid in box.processes("--alias demo")]
        assert (await town.chat("long"))[0] == 200
        await town.unload("demo")
        await town.unload("long")
    finally:
        town.house.kill_process("llm-gateway serve")
        file.write_text(before)
        await town.start_gateway()
    await town.up("attic", "cellar")


async def test_what_it_had_reserved_for_a_load_is_given_back(town: Town) -> None:
    """It is killed between reserving and starting: its node begins nothing until it is dead."""
    await town.put("plain", scripted(town.folder, ("attic",)))
    attic = town.nodes["attic"]
    async with town.watched() as something:
        for _ in range(3):  # a node may just have told something, on which it is asked again
            await town.load("plain")  # what it needs there is known from now on
            await town.unload("plain")
            await town.until(lambda: not something())
            attic.kill_process("ray::NodeActor", signal.SIGSTOP)
            asked = spawn(town.chat("plain"), name="beside the test")
            try:
                async with asyncio.timeout(3):  # one that hangs for longer is lost
                    while not something():
                        await asyncio.sleep(0.01)  # a file tells nobody
                town.house.kill_process("llm-gateway serve")
                break
            except TimeoutError:
                continue
            finally:
                await asyncio.wait([asked], timeout=0.2)  # its end is known, if it is dead
                attic.kill_process("ray::NodeActor", signal.SIGCONT)
                await asyncio.wait([asked])
    assert isinstance(asked.exception(), aiohttp.ClientError)
    assert (len(await town.reservations()), town.llama_servers()) == (1, [])
    await town.start_gateway()
    await town.up("attic", "cellar")
    await town.settled()
    assert await town.reservations() == []
    await town.put("plain", scripted(town.folder))


async def test_nothing_is_left_of_one_that_never_comes_back(town: Town, left: str) -> None:
    async with asyncio.timeout(330):  # two minutes, and two for what was reserved
        while town.llama_servers(of=left) or await town.reservations(of=left):
            await asyncio.sleep(1)  # processes and Ray tell nobody
