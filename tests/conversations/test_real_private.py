"""What a key learns of what others asked: nothing, with the bundled llama-server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.proxy.sse import usage_of
from tests.conversations.test_real_llama_server import cache, entry, words
from tests.harness import MakeGateway, Running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: Tokens with which every prompt of the demo model's template begins.
TEMPLATE = 24
PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses", "/completion"]


def body_for(path: str, text: str) -> dict[str, Any]:
    said = [{"role": "user", "content": text}]
    return {
        "/v1/chat/completions": {"messages": said, "max_tokens": 2},
        "/v1/completions": {"prompt": text, "max_tokens": 2},
        "/v1/messages": {"messages": said, "max_tokens": 2},
        "/v1/responses": {"input": said, "max_output_tokens": 2},
        "/completion": {"prompt": text, "n_predict": 2},
    }[path]


async def cached(
    running: Running, key: str, path: str, text: str, *, stream: bool = False, **more: Any
) -> int:
    """The tokens of a prompt that ``key`` had not to wait for."""
    body = {"model": "a", **body_for(path, text), "stream": stream, **more}
    async with running.request("POST", path, json=body, key=key) as answer:
        told = await answer.text()
        assert answer.status == 200, told
    parts = [line.partition(":")[2] for line in told.splitlines() if line.startswith("data:")]
    found = [json.loads(part) for part in (parts if stream else [told]) if "[DONE]" not in part]
    if path == "/completion":
        return int(found[-1]["timings"]["cache_n"])
    nested = [event.get("response", event.get("message", event)) for event in found]
    counts = [usage.cached_tokens for event in nested if (usage := usage_of(event)) is not None]
    return max(counts, default=0)


async def guest_of(running: Running) -> str:
    ring = running.gateway.ring
    assert ring is not None
    _, key = await ring.create("guest", "")
    return key


@pytest.mark.parametrize("parallel", [1, 2])
async def test_key_goes_on_with_nothing_that_another_one_asked(
    make_gateway: MakeGateway, parallel: int
) -> None:
    model = entry(parallel=parallel)
    model["params"]["ctxSize"] = 2048
    async with make_gateway({"a": model}, llama_server="auto", cache=cache()) as running:
        mine, other = running.key, await guest_of(running)
        for number, path in enumerate(PATHS):
            stream = (number + parallel) % 2 == 0
            usage: dict[str, Any] = {"stream_options": {"include_usage": True}}
            more = usage if stream and number < 2 else {}
            text = f"{number} " + words(number, 60)
            found = [
                await cached(running, key, path, text, stream=stream, **more)
                for key in (mine, other, other)
            ]
            assert max(found[:2]) <= TEMPLATE, path
            assert found[2] > 50, "its own is there, so this would show what must not be"


async def test_short_questions_and_several_prompts_tell_nothing(
    make_gateway: MakeGateway,
) -> None:
    model = entry(parallel=2)
    async with make_gateway({"a": model}, llama_server="auto", cache=cache()) as running:
        mine, other = running.key, await guest_of(running)
        chat = "/v1/chat/completions"
        for key, expected in ((mine, range(1)), (other, range(1)), (other, range(30, 60))):
            assert await cached(running, key, chat, "Short. " + words(1, 9)) in expected
        text = words(3, 60)
        await cached(running, mine, "/completion", text)
        prompts = [text, "Another one."]
        body = {"model": "a", "prompt": prompts, "n_predict": 2}
        status, answer = await running.json("POST", "/completion", json=body, key=other)
        assert status == 200
        assert [each["timings"]["cache_n"] for each in answer] == [0, 0]


async def test_what_all_keys_share_is_still_there_for_each(make_gateway: MakeGateway) -> None:
    model = entry(personalities={"cat": "You are a cat. " + words(4, 80)})
    async with make_gateway({"a": model}, llama_server="auto", cache=cache()) as running:
        mine, other = running.key, await guest_of(running)
        path = "/v1/chat/completions"
        more: dict[str, Any] = {"personality": "cat"}
        await cached(running, mine, path, words(5, 60), **more)
        async with asyncio.timeout(60):  # it is computed ahead while nobody asks
            while not (await running.json("GET", "/admin/cache"))[1]["conversations"] >= 2:
                await asyncio.sleep(0.1)
        (listed,) = (await running.json("GET", "/admin/cache"))[1]["openings"]
        assert (listed["model"], listed["key"], listed["kind"]) == ("a", "*", "personality")
        opening = await cached(running, other, path, "Hi", **more)
        assert opening > 80
        await cached(running, mine, path, words(5, 60), **more)
        assert await cached(running, other, path, words(5, 60), **more) <= opening + 4


async def test_one_key_loses_nothing_by_it(make_gateway: MakeGateway) -> None:
    async with make_gateway({"a": entry()}, llama_server="auto", cache=cache()) as running:
        path = "/v1/chat/completions"
        for expected in (range(1), range(60, 200), range(60, 200)):
            assert await cached(running, running.key, path, words(6, 60)) in expected
