"""Personalities that are computed ahead, with the bundled llama-server and the demo model."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.backends.backend import Backend
from gateway.upstream import UpstreamRequest
from tests.conversations.test_real_llama_server import ask, cache, words
from tests.harness import DEMO_GGUF, MakeGateway, Running, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TEXT = "You are a pirate. " + words(1, 800)


def entry(**more: Any) -> dict[str, Any]:
    params = {"model": DEMO_GGUF, "ctxSize": 4096, "threads": 2}
    return {"params": params, "personalities": {"pirate": TEXT}, **more}


def shared(folder: Path) -> list[dict[str, Any]]:
    """What is written down of the files that are every key's."""
    facts = [orjson.loads(file.read_bytes()) for file in folder.glob("*.json")]
    return [one for one in facts if one["owner"] == "*"]


def folder_of(running: Running) -> Path:
    return Path(running.gateway.settings.data_dir) / "cache"


async def is_at_work(backend: Backend) -> bool:
    """Whether llama-server says that it computes something."""
    request = UpstreamRequest("GET", "/slots", b"", b"")
    slots = orjson.loads((await backend.pool.fetch(request, timeout=30)).body)
    return any(slot["is_processing"] for slot in slots)


async def test_first_question_after_a_load_computes_only_itself_for_every_key(
    make_gateway: MakeGateway,
) -> None:
    told = {"prompt": TEXT, "reasoning": "low", "templateArgs": {"style": "terse"}}
    models = {"a": entry(personalities={"pirate": told}), "b": entry(personalities={})}
    settings = {"llama_server": "auto", "scheduler": {"max_loaded": 1}, "cache": cache()}
    async with make_gateway(models, **settings) as running:
        ring = running.gateway.ring
        assert ring is not None
        record, guest = await ring.create("guest", "")
        folder = folder_of(running)

        async def computed(key: str, question: str) -> int:
            body = {
                "model": "a:pirate",
                "messages": [{"role": "user", "content": question}],
                "max_tokens": 2,
            }
            status, answer = await running.json("POST", "/v1/chat/completions", json=body, key=key)
            assert status == 200, answer
            usage = answer["usage"]
            return int(usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"])

        assert await computed(running.key, "Where is " + words(2, 60)) > 800
        found = lambda: bool(shared(folder))  # noqa: E731
        await asyncio.to_thread(wait_until, found, 60, "its personality is saved")
        (facts,) = shared(folder)
        assert facts["tokens"] > 800
        for key, question in ((running.key, "What do you eat?"), (guest, "Who are you?")):
            await ask(running, "b", [{"role": "user", "content": "Hi"}])
            assert await computed(key, question) < 24
        await ask(running, "b", [{"role": "user", "content": "Hi"}])
        assert await computed(guest, "Where is " + words(2, 60)) > 50, "that was another key's"
        await ring.revoke(record.id)
        await ask(running, "a:pirate", [{"role": "user", "content": "And now?"}])
    assert len(shared(folder)) == 1, "it goes with no key"


async def test_request_breaks_off_what_is_computed_ahead_which_is_done_later(
    make_gateway: MakeGateway,
) -> None:
    settings = {"llama_server": "auto", "cache": cache()}
    async with make_gateway({"a": entry()}, **settings) as running:
        folder = folder_of(running)
        await ask(running, "a:pirate", [{"role": "user", "content": "Hi"}])
        backend = running.gateway.scheduler.backend("a")
        assert backend is not None
        await ask(running, "a", [{"role": "user", "content": words(3, 60)}])
        while not await is_at_work(backend):  # nobody asks: it is the gateway's own
            await asyncio.sleep(0.05)
        assert not shared(folder)
        async with asyncio.timeout(30):
            await ask(running, "a", [{"role": "user", "content": "Ho"}])
        assert not shared(folder), "it was broken off"
        found = lambda: bool(shared(folder))  # noqa: E731
        await asyncio.to_thread(wait_until, found, 90, "its personality is saved")
    (facts,) = shared(folder)
    assert facts["shared"] == 1
