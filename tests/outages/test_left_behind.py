"""A gateway is killed, and comes back as another one, or never: nothing of it stays for ever."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.outages.town import Town

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


async def test_nothing_is_left_of_one_that_never_comes_back(town: Town, left: str) -> None:
    async with asyncio.timeout(330):  # two minutes, and two for what was reserved
        while town.llama_servers(of=left) or await town.reservations(of=left):
            await asyncio.sleep(1)  # processes and Ray tell nobody
