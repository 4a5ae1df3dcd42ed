"""The head goes for a while: what runs goes on."""

from __future__ import annotations

import asyncio

import pytest

from tests.outages.town import Town

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]


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
