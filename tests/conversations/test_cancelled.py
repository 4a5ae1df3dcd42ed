"""Requests that are given up at any moment between taking a slot and giving it back."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.backends.backend import Backend
from gateway.conversations.chain import NO_CHAIN, Wish
from gateway.conversations.keeper import Conversations
from gateway.conversations.stray import Stray
from gateway.conversations.turn import Turn
from gateway.proxy.call import Outcome
from gateway.proxy.sse import Usage
from gateway.tasks import spawn
from gateway.upstream import UpstreamRequest
from tests.conversations.test_place import chain
from tests.local_backends import WatchedLocal
from tests.scripted import Box
from tests.tiny_model import write_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
KEY = "k"


class Alone:
    """A lease that nobody else could have."""

    def lend(self) -> None: ...
    def reclaim(self) -> None: ...


def placed(conversations: Conversations, chosen: random.Random) -> tuple[Turn | Stray, str]:
    """What places a request, and its prompt."""
    kind = chosen.randrange(8)
    text = chosen.choice("abcd") + chosen.choice(("", "x", "xy", "z"))
    prompt = "".join(letter * 100 for letter in text)
    if kind == 0:
        return conversations.stray(KEY, chosen.randrange(1, 4)), prompt
    wish = Wish(NO_CHAIN if kind == 1 else chain(text, 100), 1 if kind == 2 else None)
    sent = orjson.dumps({"prompt": prompt})
    return conversations.turn(wish, KEY, sent, 2 if kind == 3 else 1), prompt


async def send(conversations: Conversations, backend: Backend, chosen: random.Random) -> None:
    turn, prompt = placed(conversations, chosen)
    target = "/v1/messages" if chosen.randrange(5) == 0 else "/completion"
    ended = Outcome()
    body: dict[str, Any] = {"prompt": prompt, "n_predict": 1}
    try:
        slot = await turn.begin(backend, target, Alone())
        if slot is not None:
            body["id_slot"] = slot
        ended.given_up = True
        request = UpstreamRequest(
            "POST", "/completion", b"Content-Type: application/json\r\n", orjson.dumps(body)
        )
        fetched = await backend.pool.fetch(request, timeout=60)
        turn.began()
        told = orjson.loads(fetched.body)
        ended.usage = Usage(told["tokens_evaluated"], 1, cached_tokens=told["timings"]["cache_n"])
        ended.given_up = False
    finally:
        turn.end(ended)


@pytest.mark.parametrize("seed", range(2))
async def test_no_slot_stays_taken_whenever_requests_are_given_up(
    tmp_path: Path, seed: int
) -> None:
    chosen = random.Random(seed)
    box = Box(tmp_path)
    write_tiny_model(box.model)
    conversations = Conversations(tmp_path / "cache", max_size=2**30, max_age=1e9, min_tokens=48)
    await conversations.open()
    environment = box.environment(llama_server="auto", slot_saves=conversations)
    backend = WatchedLocal(box.spec(parallel=2, ctx=2048), environment, "a.sock")
    try:
        await backend.ensure_ready()
        slots = conversations.slots_of(backend)
        assert slots is not None
        running = []
        for number in range(120):
            running.append(spawn(send(conversations, backend, chosen), name=f"request {number}"))
            for _ in range(chosen.randrange(30)):
                await asyncio.sleep(0)
            if chosen.random() < 0.5:
                await asyncio.wait([chosen.choice(running)], timeout=chosen.random() / 20)
            if chosen.random() < 0.4:
                chosen.choice(running[-4:]).cancel()
        async with asyncio.timeout(120):
            await asyncio.wait(running)
            while any(slot.busy or slot.ending or slot.locked for slot in slots.all):
                await asyncio.sleep(0.01)
        assert [task for task in running if not task.cancelled() and task.exception()] == []
        assert any(task.cancelled() for task in running)
        counts = conversations.counts(backend.spec.name)
        assert counts is not None
        assert min(counts.bytes_written, counts.bytes_read) > 0
    finally:
        await backend.stop()
        await conversations.close()
