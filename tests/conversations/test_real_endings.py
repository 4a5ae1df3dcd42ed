"""However a llama-server is ended, what it has read of a conversation is saved."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conversations.test_real_llama_server import ask, cache, entry, words
from tests.harness import MakeGateway, Running, Served, eventually, project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


async def unload(running: Running) -> None:
    status, _ = await running.json("POST", "/models/unload", json={"model": "a"})
    assert status == 200
    await eventually(lambda: not running.gateway.scheduler.loaded(), "it is unloaded", 60)


async def stay_idle(running: Running) -> None:
    await eventually(lambda: not running.gateway.scheduler.loaded(), "it is unloaded", 60)


async def edit(running: Running) -> None:
    """Its entry is changed, and changed back: its process is another one each time."""
    file = running.gateway.settings.models_file
    before = file.read_text()
    changed = json.loads(before)
    changed["a"]["env"] = {"LLAMA_ARG_TIMEOUT": "599"}
    for text in (json.dumps(changed), before):
        backend = running.gateway.scheduler.backend("a")
        assert backend is not None
        pid = backend.pid
        file.write_text(text)
        await running.gateway.reload()
        await eventually(lambda: not Path(f"/proc/{pid}").exists(), "it is ended", 60)  # noqa: B023
        await ask(running, "a", [{"role": "user", "content": "Hi"}])


@pytest.mark.parametrize("end", [unload, stay_idle, edit])
async def test_conversation_is_saved_however_its_process_is_ended(
    make_gateway: MakeGateway, end: Callable[[Running], Awaitable[None]]
) -> None:
    model = entry(ttl=0.5) if end is stay_idle else entry()
    messages: list[Any] = [{"role": "user", "content": "Tell me. " + words(31, 60)}]
    async with make_gateway({"a": model}, llama_server="auto", cache=cache()) as running:
        text, prompt, _ = await ask(running, "a", messages)
        await end(running)
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "On."}]
        _, _, cached = await ask(running, "a", messages)
        assert cached >= prompt


async def test_conversation_is_saved_when_the_gateway_ends(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    messages: list[Any] = [{"role": "user", "content": "Tell me. " + words(32, 60)}]
    settings = {"llama_server": "auto", "cache": cache(dir=str(tmp_path / "kept"))}
    async with make_gateway({"a": entry()}, **settings) as running:
        await ask(running, "a", messages)
    assert len([*(tmp_path / "kept").glob("*.json")]) == 1


async def test_conversation_is_saved_by_a_gateway_that_gets_sigterm(tmp_path: Path) -> None:
    config = project(tmp_path / "p", {"a": entry()}, llama_server="auto", cache=cache())
    served = Served(tmp_path / "p", "--config", str(config))
    try:
        said = [{"role": "user", "content": "Tell me. " + words(33, 60)}]
        async with served.async_client() as client:
            await client.chat.completions.create(model="a", messages=said, max_tokens=4)  # type: ignore[arg-type]
    finally:
        assert await asyncio.to_thread(served.stop) == 0
    left = {file.suffix for file in (tmp_path / "p/data/cache").iterdir()}
    assert left == {"", ".json", ".kv"}, "its lock, and one conversation"
