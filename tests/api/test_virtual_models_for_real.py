"""Personalities with parameters of a real llama-server: in each API, streamed or in one piece."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import MakeGateway, Running
from tests.parrot_model import ANSWER, CITY, THOUGHT, TOOL

PERSONALITIES = {
    "thinks": {"templateArgs": {"think": True}},
    "short": {"setParams": {"max_tokens": 2}, "description": "says little"},
    "handy": {"tools": [TOOL]},
}
USER = {"role": "user", "content": "hi"}
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [USER], "max_completion_tokens": 50},
    "/v1/responses": {"input": "hi", "max_output_tokens": 50},
    "/v1/messages": {"messages": [USER], "max_tokens": 50},
}
#: Each API's words for a thought.
THOUGHTS = {
    "/v1/chat/completions": "reasoning_content",
    "/v1/responses": "reasoning_text",
    "/v1/messages": "thinking",
}


@pytest.fixture
async def running(make_gateway: MakeGateway, parrot_model: Path) -> AsyncIterator[Running]:
    """One with a model of its own, and one that another gateway has."""
    params = {"model": str(parrot_model), "ctxSize": 2048, "threads": 1}
    settings = {"llama_server": "auto"}
    async with make_gateway({"m": {"params": params}}, folder="elsewhere", **settings) as other:
        far = {"url": other.url, "key": other.key, "modelName": "m"}
        models = {
            "here": {"params": params, "personalities": PERSONALITIES},
            "far": {**far, "personalities": PERSONALITIES},
        }
        async with make_gateway(models, **settings) as running:
            yield running


async def told(running: Running, path: str, body: dict[str, Any], *, chunked: bool) -> str:
    """The text of the answer of ``path``. ``chunked``: by aiohttp's server, as any such request."""
    written = json.dumps({**ASKED[path], **body}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        yield written

    headers = {"Content-Type": "application/json"}
    data = pieces() if chunked else written
    async with running.request("POST", path, data=data, headers=headers) as response:
        text: str = await response.text()
        assert response.status == 200, text
        return text


def words(path: str, answer: str) -> str:
    """What is said in an answer, without thoughts."""
    if answer.startswith("{"):
        parsed = json.loads(answer)
        if path == "/v1/chat/completions":
            return str(parsed["choices"][0]["message"]["content"])
        if path == "/v1/messages":
            return "".join(part.get("text", "") for part in parsed["content"])
        items = (item.get("content") or () for item in parsed["output"])
        parts = itertools.chain.from_iterable(items)
        return "".join(part["text"] for part in parts if part["type"] == "output_text")
    lines = [line[6:] for line in answer.splitlines() if line.startswith("data: {")]
    events = [json.loads(line) for line in lines]
    if path == "/v1/chat/completions":
        deltas = [choice["delta"] for event in events for choice in event["choices"]]
        return "".join(delta.get("content") or "" for delta in deltas)
    if path == "/v1/messages":
        return "".join(event.get("delta", {}).get("text", "") for event in events)
    return "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")


async def test_personality_shapes_answers_in_each_api_and_everywhere(
    running: Running, subtests: pytest.Subtests
) -> None:
    for model, path, stream, chunked in itertools.product(
        ("here", "far"), ASKED, (False, True), (False, True)
    ):
        with subtests.test(f"{model} {path} {stream=} {chunked=}"):

            async def ask(name: str) -> str:
                body = {"model": f"{model}:{name}", "stream": stream}  # noqa: B023
                return await told(running, path, body, chunked=chunked)  # noqa: B023

            assert words(path, await ask("short")) == ANSWER[: len("Hello from")]
            thought = await ask("thinks")
            assert words(path, thought).strip() == ANSWER
            assert THOUGHTS[path] in thought
            assert stream or THOUGHT in thought
            called = await ask("handy")
            assert "weather" in called
            assert stream or CITY["city"] in called
    with subtests.test("Ollama's API"):
        body = {"model": "here:short", "messages": [USER], "stream": False}
        status, answer = await running.json("POST", "/api/chat", json=body)
        assert (status, answer["message"]["content"]) == (200, "Hello from")
    with subtests.test("tools are in every prompt, once"):
        await tools_are_in_prompts(running)


async def tools_are_in_prompts(running: Running) -> None:
    async def prompt(name: str, **fields: Any) -> str:
        body = {"model": name, "messages": [USER], **fields}
        status, answer = await running.json("POST", "/apply-template", json=body)
        assert status == 200, answer
        return str(answer["prompt"])

    own = {"type": "function", "function": {**TOOL["function"], "description": "Of mine."}}
    other = {"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}
    with_ours = await prompt("here:handy")
    assert with_ours == await prompt("here", tools=[TOOL])
    assert await prompt("here:handy", tools=[other]) == await prompt("here", tools=[TOOL, other])
    assert await prompt("here:handy", tools=[own]) == await prompt("here", tools=[own])
    for path, body in ASKED.items():
        counted = []
        for name in ("here", "here:handy"):
            status, answer = await running.json("POST", path, json={**body, "model": name})
            assert status == 200, answer
            usage = answer["usage"]
            tokens = usage.get("prompt_tokens", usage.get("input_tokens"))
            counted.append(tokens + usage.get("cache_read_input_tokens", 0))
        assert counted[1] > counted[0] + 20, path
