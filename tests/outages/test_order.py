"""Nothing goes wrong: models are placed, swapped, moved off; machines go and come back."""

from __future__ import annotations

import pytest

from tests.outages.town import Town

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300, func_only=True)]


async def test_the_real_llama_server_answers_from_a_node(town: Town) -> None:
    box = await town.load("demo")
    assert town.llama_servers() == [("demo", box.name)]
    assert len(await town.reservations()) == 1
    assert (await town.chat("demo"))[0] == 200
    await town.unload("demo")
    await town.settled()
    assert town.llama_servers() == []


async def test_models_take_each_others_place_where_each_node_has_room_for_one(town: Town) -> None:
    box = await town.load("wide")
    assert await town.load("broad") is town.other(box)
    assert await town.load("large") is box  # the place of what was used first
    await town.settled()
    assert await town.load("wide") is town.other(box)
    await town.settled()
    assert {model for model, _ in town.llama_servers()} == {"large", "wide"}
    await town.unload("large")
    await town.unload("wide")


async def test_a_drained_node_gives_up_its_models_without_breaking_a_stream(town: Town) -> None:
    box = await town.load("long")
    async with town.stream("long") as answer:
        await answer.readline()
        await town.drain(box.name)
        assert "[DONE]" in (await answer.read()).decode()
    await town.load("long")
    await town.only_on("long", town.other(box))  # the other one ends behind its last answer
    await town.resume(box.name)
    await town.unload("long")


async def test_a_machine_that_is_switched_off_and_on_again_is_used_again(town: Town) -> None:
    box = await town.load("plain")
    other = town.other(box)
    await town.drain(other.name)
    box.kill()
    await town.up(other.name)
    await town.join(box)
    await town.up("attic", "cellar")
    assert await town.load("plain") is box
    await town.resume(other.name)
    await town.unload("plain")
