"""What is computed before anybody asks for it, and what becomes of it, with the bundled
llama-server.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.backends.backend import Backend
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
from tests.conversations.test_real_llama_server import ask, cache, words
from tests.conversations.tool_templates import TEMPLATES
from tests.harness import MakeGateway, Running
from tests.tiny_model import GRAMMAR

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SETTINGS: dict[str, Any] = {
    "llama_server": "auto",
    "scheduler": {"max_loaded": 1},
    "cache": cache(),
}
#: A text that takes seconds to compute.
LONG = "you are a poet " + words(7, 1500)


def with_tools(folder: Path, **more: Any) -> dict[str, Any]:
    return entry(folder, extraArgs=["--chat-template", TEMPLATES["behind"]], **more)


async def load(running: Running) -> Backend:
    status, answer = await running.json("POST", "/models/load", json={"model": "a"})
    assert status == 200, answer
    backend = running.gateway.scheduler.backend("a")
    assert backend is not None
    return backend


async def test_restart_of_the_gateway_loses_neither_text_nor_tools(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models, kept = {"a": with_tools(tmp_path)}, str(tmp_path / "kept")
    async with make_gateway(models, data_dir=kept, **SETTINGS) as running:
        key = running.key
        await computed(running, "where")
        for question in ("where", "why"):
            await computed(running, question, tools=tools(1))
        saved = await until_saved(running, 2)
        assert {one["owner"] == "*" for one in saved} == {True, False}
    async with make_gateway(models, folder="again", data_dir=kept, **SETTINGS) as running:
        number, _ = await computed(running, "who", tools=tools(1), key=key)
        assert number < LITTLE
        number, _ = await computed(running, "how", key=key)
        assert number < LITTLE
        number, _ = await computed(running, "how", tools=tools(1), key=running.key)
        assert number > 300, "that is another key"


async def test_personality_that_was_used_is_computed_after_a_load_before_anybody_asks(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = {"a": entry(tmp_path, personalities={"pirate": TEXT, "poet": LONG})}
    kept = {"data_dir": str(tmp_path / "kept"), "llama_server": "auto"}
    async with make_gateway(models, **kept, cache={"enabled": False}) as running:
        await computed(running, "where")
    async with make_gateway(models, folder="again", **kept, cache=cache()) as running:
        await load(running)
        await until_saved(running)
        number, _ = await computed(running, "where")
        assert number < LITTLE
        assert len(facts_in(folder_of(running))) == 1, "nobody has used the other one"


@pytest.mark.parametrize("chosen", ["with the model", "by a key"])
async def test_personality_that_requests_have_by_default_is_computed_after_a_load(
    make_gateway: MakeGateway, tmp_path: Path, chosen: str
) -> None:
    async with make_gateway({"a": entry(tmp_path)}, **SETTINGS) as running:
        if chosen == "by a key":
            body = {"name": "pirates", "defaultPersonality": "pirate"}
            status, answer = await running.json("POST", "/admin/keys", json=body)
            assert status in (200, 201), answer
            await load(running)
        else:
            body = {"model": "a", "personality": "pirate"}
            status, answer = await running.json("POST", "/loadModel", json=body)
            assert status == 200, answer
        await until_saved(running)
        number, _ = await computed(running, "where")
        assert number < LITTLE


@contextlib.contextmanager
def heard(backend: Backend, what: str) -> Iterator[asyncio.Event]:
    """An event that is set when llama-server's log says ``what``."""
    event = asyncio.Event()

    def hear() -> None:
        if what in backend.log.last:
            event.set()

    stop = backend.log.listen(hear)
    try:
        yield event
    finally:
        stop()


async def test_request_that_comes_while_something_is_computed_ahead_does_not_wait_for_it(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = {"a": entry(tmp_path, personalities={"poet": LONG})}
    async with make_gateway(models, **SETTINGS) as running:
        backend = await load(running)
        with heard(backend, "processing task") as begun:
            body = {"model": "a", "personality": "poet"}
            await running.json("POST", "/loadModel", json=body)
            await asyncio.wait_for(begun.wait(), 60)  # nobody has asked: it is the gateway's own
        await ask(running, "a", [{"role": "user", "content": "hi"}], grammar=GRAMMAR)
        assert not facts_in(folder_of(running)), "it was broken off"
        (facts,) = await until_saved(running)
        assert facts["tokens"] > len(LONG) / 2, "it was taken up when nobody asked any more"


async def test_text_is_computed_once_for_several_slots(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = {"a": with_tools(tmp_path, parallel=2), "b": entry(tmp_path, "b")}
    async with make_gateway(models, **SETTINGS) as running:
        await computed(running, "where")
        for question in ("where", "why"):
            await computed(running, question, tools=tools(1))
        await until_saved(running, 2)
        await swap(running)
        asked = (computed(running, "who"), computed(running, "how", tools=tools(1)))
        assert max(number for number, _ in await asyncio.gather(*asked)) < LITTLE
        assert len(facts_in(folder_of(running))) == 2


async def test_edited_personality_is_computed_anew_and_its_old_text_forgotten(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    written = {"pirate": {"prompt": TEXT, "tools": tools(1)}, "sailor": "you sail " + TEXT}
    models = {"a": with_tools(tmp_path, personalities=written), "b": entry(tmp_path, "b")}
    async with make_gateway(models, **SETTINGS) as running:
        await computed(running, "where", grammar=None, max_tokens=1)
        await computed(running, "where", model="a:sailor")
        before = await until_saved(running, 2)
        written["pirate"] = {"prompt": "now " + TEXT, "tools": tools(1)}
        file = running.gateway.settings.models_file
        file.write_bytes(orjson.dumps(models))
        await running.gateway.library.refresh()
        number, _ = await computed(running, "where", grammar=None, max_tokens=1)
        assert number > 300, "the old text is of no use"
        after = await until_saved(
            running, goes=lambda one: one["shared"] == 2 and one["name"] not in names(before)
        )
        assert len(after) == 1
        kept = names(facts_in(folder_of(running)))
        assert len(kept) == 2
        assert len(kept & names(before)) == 1, "the sailor's"
        await swap(running)
        number, _ = await computed(running, "who", grammar=None, max_tokens=1)
        assert number < LITTLE


def names(facts: list[dict[str, Any]]) -> set[str]:
    return {one["name"] for one in facts}


async def test_what_a_changed_entry_makes_useless_is_computed_once_more_before_anybody_asks(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = {"a": with_tools(tmp_path)}
    async with make_gateway(models, **SETTINGS) as running:
        for question in ("where", "why"):
            await computed(running, question, tools=tools(1))
        (before,) = await until_saved(running)
        models["a"]["params"]["ctxSize"] = 4096
        running.gateway.settings.models_file.write_bytes(orjson.dumps(models))
        await running.gateway.library.refresh()
        await load(running)
        await until_saved(
            running,
            goes=lambda one: one["shared"] == 2 and one["fingerprint"] != before["fingerprint"],
        )
        number, _ = await computed(running, "who", tools=tools(1))
        assert number < LITTLE
