"""The head goes, or the way to a node, for a while: what runs goes on."""

from __future__ import annotations

import asyncio

import pytest

from gateway.tasks import spawn
from tests.outages.town import Town

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300, func_only=True)]


@pytest.mark.parametrize("how", ["killed", "without power"])
async def test_requests_go_on_without_the_head(town: Town, how: str) -> None:
    box = await town.load("plain")
    before = box.processes("--alias plain")
    await asyncio.to_thread(town.hub.kill if how == "killed" else town.hub.cut_power)
    await town.head_is_said_to_be(away=True)
    assert (await town.chat("plain"))[0] == 200
    await town.start_head()
    await town.head_is_said_to_be(away=False)
    await town.up("attic", "cellar")
    assert (await town.chat("plain"))[0] == 200
    assert box.processes("--alias plain") == before
    await town.unload("plain")
    assert (await town.chat("long"))[0] == 200  # one that is placed anew
    await town.settled()
    await town.unload("long")


async def test_a_short_break_of_the_network_is_sat_out(town: Town) -> None:
    box = await town.load("plain")
    before = box.processes("--alias plain")
    box.unplug()
    await asyncio.sleep(3)  # as long as the break is
    box.plug_in()
    assert (await town.chat("plain"))[0] == 200
    assert box.processes("--alias plain") == before
    await town.unload("plain")


async def test_a_node_that_was_cut_off_for_a_minute_comes_back_empty(town: Town) -> None:
    box = await town.load("plain")
    box.unplug()
    cut = spawn(asyncio.sleep(60), name="the break")
    assert (await town.chat("plain"))[0] == 200
    assert (await town.model("plain"))["nodes"] == [town.other(box).name]
    await cut
    box.plug_in()
    await town.up("attic", "cellar")
    await town.settled()
    assert len(town.llama_servers()) == 1
    await town.unload("plain")
