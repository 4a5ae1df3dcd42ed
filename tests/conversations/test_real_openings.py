"""Tools that come again and again, with the bundled llama-server: computed ahead, and for whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.conversations.keeper import Conversations
from tests.conversations.openings import (
    LITTLE,
    TEXT,
    computed,
    entry,
    facts_in,
    folder_of,
    swap,
    tools,
    until_saved,
)
from tests.conversations.test_real_llama_server import cache
from tests.conversations.tool_templates import TEMPLATES
from tests.harness import MakeGateway, Running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SETTINGS: dict[str, Any] = {
    "llama_server": "auto",
    "scheduler": {"max_loaded": 1},
    "cache": cache(),
}


def models(folder: Path, template: str = "behind", **more: Any) -> dict[str, Any]:
    arguments = ["--chat-template", TEMPLATES[template]]
    return {"a": entry(folder, extraArgs=arguments, **more), "b": entry(folder, "b")}


async def other_key(running: Running, name: str) -> str:
    ring = running.gateway.ring
    assert ring is not None
    _, key = await ring.create(name, "")
    return key


@pytest.mark.parametrize("template", TEMPLATES)
async def test_first_question_computes_only_itself_once_its_tools_were_seen_twice(
    make_gateway: MakeGateway, tmp_path: Path, template: str
) -> None:
    async with make_gateway(models(tmp_path, template), **SETTINGS) as running:
        for question in ("where", "why"):
            await computed(running, question, tools=tools(1))
        (facts,) = await until_saved(running)
        assert facts["owner"] != "*"
        assert facts["tokens"] > 300
        await swap(running)
        number, _ = await computed(running, "what do you eat", tools=tools(1))
        assert number < LITTLE
        number, _ = await computed(running, question, tools=tools(2))
        assert number > 300, "others were not computed ahead"


async def test_tools_of_one_key_are_never_read_back_for_another_one(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway(models(tmp_path), **SETTINGS) as running:
        guest, third = [await other_key(running, name) for name in ("guest", "third")]
        for question in ("where", "why", "who"):
            await computed(running, question, tools=tools(1))
        await until_saved(running)
        for question in ("where", "which"):
            await swap(running)
            number, _ = await computed(running, question, tools=tools(1), key=guest)
            assert number > 300 or question == "which", "its own, from the conversation before"
        # Now two keys have used them, each in two conversations.
        await until_saved(running, goes=lambda one: (one["owner"], one["shared"]) == ("*", 2))
        await swap(running)
        number, _ = await computed(running, "how", tools=tools(1), key=third)
        assert number < LITTLE


async def test_tools_behind_a_text_of_a_client_stay_its_keys(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway(models(tmp_path), **SETTINGS) as running:
        guest, third = [await other_key(running, name) for name in ("guest", "third")]

        async def ask(question: str, key: str) -> int:
            said = [
                {"role": "system", "content": "mine"},
                {"role": "user", "content": question},
            ]
            number, _ = await computed(running, "", messages=said, tools=tools(1), key=key)
            return number

        for key in (running.key, guest):
            for question in ("where", "why"):
                await ask(question, key)
        saved = await until_saved(running, 2)
        assert "*" not in {facts["owner"] for facts in saved}
        await swap(running)
        assert await ask("who", guest) < LITTLE
        await swap(running)
        assert await ask("who", third) > 300


async def test_tools_that_an_operator_wrote_are_every_keys_at_once_in_every_dialect(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    written = {"pirate": {"prompt": TEXT, "tools": tools(1)}}
    async with make_gateway(models(tmp_path, personalities=written), **SETTINGS) as running:
        guest = await other_key(running, "guest")
        number, _ = await computed(running, "where", max_tokens=1, grammar=None)
        assert number > 300
        (facts,) = await until_saved(running)
        assert (facts["owner"], facts["shared"]) == ("*", 2)
        await swap(running)
        body = {"model": "a:pirate", "max_tokens": 1}
        asked = {**body, "messages": [{"role": "user", "content": "who"}]}
        status, answer = await running.json("POST", "/v1/messages", json=asked, key=guest)
        assert status == 200, answer
        assert answer["usage"]["input_tokens"] < LITTLE
        await swap(running)
        asked = {"model": "a:pirate", "max_output_tokens": 1, "input": "who"}
        status, answer = await running.json("POST", "/v1/responses", json=asked, key=guest)
        assert status == 200, answer
        usage = answer["usage"]
        assert usage["input_tokens"] - usage["input_tokens_details"]["cached_tokens"] < LITTLE


async def test_no_more_openings_with_tools_are_kept_than_are_allowed(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway(models(tmp_path), **SETTINGS) as running:
        for seed in range(10):
            for question in ("where", "why"):
                await computed(running, question, tools=tools(seed))
        await until_saved(running, 8)
        await computed(running, "who", tools=tools(0))
    assert len(facts_in(folder_of(running))) == 8


@pytest.mark.parametrize("whose", ["", "?key={guest}", "?model=a"])
async def test_what_was_to_be_computed_for_a_key_is_removed_with_the_rest(
    make_gateway: MakeGateway, tmp_path: Path, whose: str
) -> None:
    async with make_gateway(models(tmp_path), **SETTINGS) as running:
        guest = await other_key(running, "guest")
        for question in ("where", "why"):
            await computed(running, question, tools=tools(1), key=guest)
        conversations = running.gateway.scheduler.environment.slot_saves
        assert isinstance(conversations, Conversations)
        backend = running.gateway.scheduler.backend("a")
        assert backend is not None
        slots = conversations.slots_of(backend)
        assert slots is not None
        assert slots.prewarming.waits
        ring = running.gateway.ring
        assert ring is not None
        (owner,) = [key.id for key in ring.records if key.name == "guest"]
        status, _ = await running.json("DELETE", "/admin/cache" + whose.format(guest=owner))
        assert status == 200
        assert not slots.prewarming.waits
