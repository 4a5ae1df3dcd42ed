"""What goes through the gateway unharmed: its answer is llama-server's own, and so is its error."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.upstream import UpstreamRequest
from tests.harness import MakeGateway, Running
from tests.parrot_model import ANSWER, CITY, FILLING, REPORT, THOUGHT, TOOL

#: What differs from one answer to the next, and the one field that the gateway adds.
PASSING = {
    *("id", "id_slot", "item_id", "call_id", "created", "created_at", "completed_at"),
    *("timings", "responses"),
}
USER = {"role": "user", "content": "hi"}
CHAT = {"model": "m", "messages": [USER], "temperature": 0, "max_tokens": 40}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Cairo", "Rome"]}},
    "required": ["city"],
}
CALLED = [
    USER,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": json.dumps(CITY)},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "40 degrees"},
]
ANTHROPIC_TOOL = {"name": "weather", "input_schema": TOOL["function"]["parameters"]}
DATA_URL = "data:image/png;base64,iVBORw0KGgo="


def image(**source: Any) -> list[Any]:
    return [{"role": "user", "content": [{"type": "text", "text": "What?"}, source]}]


@pytest.fixture
async def running(make_gateway: MakeGateway, parrot_model: Path) -> AsyncIterator[Running]:
    model = {
        "params": {"model": str(parrot_model), "ctxSize": 2048, "threads": 1},
        "parallel": 2,
        "extraArgs": ["--no-cache-prompt"],  # nothing from what was asked before
    }
    async with make_gateway({"m": model}, llama_server="auto") as running:
        await running.gateway.scheduler.load("m")
        yield running


def lasting(value: Any) -> Any:
    """An answer without what passes."""
    if isinstance(value, dict):
        return {key: lasting(item) for key, item in value.items() if key not in PASSING}
    return [lasting(item) for item in value] if isinstance(value, list) else value


async def both(running: Running, path: str, body: Any) -> tuple[Any, Any]:
    """Status, content type and body through the gateway, and without it."""
    answers = []
    for asked in (
        running.request("POST", path, json=body),
        running.directly("m", path, body),
    ):
        async with asked as response:
            answer = await response.text()
            if response.content_type == "text/event-stream":
                answer = [
                    lasting(json.loads(line[6:])) if line.startswith("data: {") else line
                    for line in answer.splitlines()
                    if not line.startswith(":")
                ]
            else:
                answer = lasting(json.loads(answer))
            answers.append((response.status, response.content_type, answer))
    return answers[0], answers[1]


async def same(running: Running, path: str, body: Any) -> Any:
    """The body of a success that is the same both ways, order of its keys included."""
    ours, direct = await both(running, path, body)
    assert json.dumps(ours) == json.dumps(direct)
    assert ours[0] == 200, ours
    return ours[2]


async def test_chat_completions_are_passed_through(running: Running) -> None:
    async def message(**more: Any) -> Any:
        answer = await same(running, "/v1/chat/completions", {**CHAT, **more})
        return answer["choices"][0]["message"]

    assert (await message())["content"] == ANSWER
    assert (await message(tools=[TOOL]))["tool_calls"][0]["function"] == {
        "name": "weather",
        "arguments": json.dumps(CITY),
    }
    assert (await message(tools=[TOOL], messages=CALLED))["content"] == REPORT
    # llama-server itself answers 500 to this one, which OpenAI takes.
    function = {**TOOL["function"], "description": None}
    body = {**CHAT, "tools": [{"type": "function", "function": function}], "stop": None}
    ours, direct = await both(running, "/v1/chat/completions", body)
    assert (ours[0], direct[0]) == (200, 500)
    assert ours[2]["choices"][0]["finish_reason"] == "tool_calls"
    thoughtful = {"chat_template_kwargs": {"think": True}}
    assert await message(**thoughtful) == {
        "role": "assistant",
        "content": ANSWER,
        "reasoning_content": THOUGHT,
    }
    assert THOUGHT in (await message(**thoughtful, reasoning_format="none"))["content"]
    assert (await message(stop=["river", "x"]))["content"] == "Hello from the "
    wanted = {"type": "json_schema", "json_schema": {"name": "c", "schema": SCHEMA}}
    assert json.loads((await message(response_format=wanted))["content"])["city"] in (
        "Cairo",
        "Rome",
    )
    chosen = await same(
        running, "/v1/chat/completions", {**CHAT, "n": 2, "logprobs": True, "top_logprobs": 3}
    )
    assert [choice["index"] for choice in chosen["choices"]] == [0, 1]
    for choice in chosen["choices"]:
        tokens = choice["logprobs"]["content"]
        assert "".join(token["token"] for token in tokens) == ANSWER
        assert [len(token["top_logprobs"]) for token in tokens] == [3] * len(tokens)


async def test_streams_are_passed_through(running: Running, subtests: pytest.Subtests) -> None:
    """The same events; the gateway may add comments only, and numbers to Responses."""
    for path, body in (
        ("/v1/chat/completions", {**CHAT, "stream_options": {"include_usage": True}}),
        ("/v1/chat/completions", {**CHAT, "tools": [TOOL]}),
        ("/v1/chat/completions", {**CHAT, "chat_template_kwargs": {"think": True}}),
        ("/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 1}),
        ("/v1/completions", {"model": "m", "prompt": "x", "max_tokens": 9}),
        ("/v1/messages", {**CHAT, "tools": [ANTHROPIC_TOOL]}),
        ("/infill", {"model": "m", "input_prefix": "a", "input_suffix": "b"}),
    ):
        with subtests.test(f"{path!r:.80}"):
            events = await same(running, path, {"seed": 1, **body, "stream": True})
            assert isinstance(events, list)
            assert len([event for event in events if isinstance(event, dict)]) > 3


async def test_other_routes_are_passed_through(running: Running) -> None:
    filled = await same(
        running,
        "/infill",
        {
            "model": "m",
            "input_prefix": "def f():\n",
            "input_suffix": "\n",
            "input_extra": [{"filename": "a.py", "text": "x"}],
            "seed": 1,
        },
    )
    assert filled["content"] == FILLING
    text = "Grüße, 🦜 and\nmore"
    tokens = await same(running, "/tokenize", {"model": "m", "content": text})
    assert (await same(running, "/detokenize", {"model": "m", **tokens}))[
        "content"
    ].lstrip() == text
    pieces = {"model": "m", "content": text, "with_pieces": True, "add_special": True}
    assert {"id", "piece"} == set(
        (await running.json("POST", "/tokenize", json=pieces))[1]["tokens"][0]
    )
    await same(running, "/tokenize", pieces)
    body = {"model": "m", "messages": CALLED, "tools": [TOOL]}
    prompt = (await same(running, "/apply-template", body))["prompt"]
    assert "40 degrees" in prompt
    assert prompt.endswith("<|report|>")
    thoughtful = {**CHAT, "chat_template_kwargs": {"think": True}}
    assert (await same(running, "/apply-template", thoughtful))["prompt"].endswith("<think>")
    asked = {"model": "m", "input": "hi", "temperature": 0, "chat_template_kwargs": {"think": True}}
    output = (await same(running, "/v1/responses", asked))["output"]
    assert output[0]["content"][0] == {"text": THOUGHT, "type": "reasoning_text"}
    assert output[1]["content"][0]["text"] == ANSWER
    called = await same(running, "/v1/messages", {**CHAT, "tools": [ANTHROPIC_TOOL]})
    assert called["stop_reason"] == "tool_use"
    assert called["content"][0]["input"] == CITY


async def test_errors_keep_status_and_message(running: Running, subtests: pytest.Subtests) -> None:
    """Values that llama-server doesn't take, and says so with a 400."""
    for path, body, said in (
        ("/v1/chat/completions", {**CHAT, "n": 7}, "'n'"),
        ("/v1/chat/completions", {**CHAT, "grammar": "root ::= ("}, "grammar"),
        ("/v1/chat/completions", {**CHAT, "stream": True, "top_logprobs": 7}, "logprobs"),
        ("/v1/messages", {**CHAT, "temperature": "warm"}, "temperature"),
        ("/infill", {"model": "m", "input_prefix": 7}, "input_suffix"),
    ):
        with subtests.test(f"{path!r:.80}"):
            ours, direct = await both(running, path, body)
            assert ours[:2] == direct[:2]
            assert ours[0] >= 400
            error = ours[2]["error"]
            assert error["message"] == direct[2]["error"]["message"]
            assert said in error["message"]
            if path != "/v1/messages":
                assert error["type"] == direct[2]["error"]["type"]
                assert isinstance(error["code"], str)
                assert error["param"] is None


async def test_too_long_is_one_clear_400(running: Running, subtests: pytest.Subtests) -> None:
    """Everywhere the same, streamed or not, with both numbers."""
    long = "x" * 3000
    messages = [{"role": "user", "content": long}]
    for stream in (False, True):
        for path, body in (
            ("/v1/chat/completions", {"messages": messages}),
            ("/v1/responses", {"input": long}),
            ("/v1/completions", {"prompt": long}),
            ("/completion", {"prompt": long}),
            ("/v1/messages", {"messages": messages, "max_tokens": 9}),
        ):
            with subtests.test(f"{path!r:.80}"):
                body = {"model": "m", "stream": stream, **body}
                status, answer = await running.json("POST", path, json=body)
                assert status == 400, (path, answer)
                error = answer["error"]
                if path == "/v1/messages":
                    assert error["type"] == "invalid_request_error"
                    assert "1024" in error["message"]
                    continue
                assert error["code"] == "context_length_exceeded"
                assert error["n_ctx"] == 1024  # of 2048 for two slots
                assert error["n_prompt_tokens"] > 3000
                assert f"({error['n_prompt_tokens']} tokens)" in error["message"]
                assert "(1024 tokens)" in error["message"]
    assert running.gateway.scheduler.status()[0].in_flight == 0


async def test_packed_page_of_llama_server_is_passed_through(running: Running) -> None:
    """llama-server has its pages packed only, and answers nobody who doesn't take that."""
    backend = running.gateway.scheduler.backend("m")
    assert backend is not None
    accept = b"Accept-Encoding: gzip\r\n"
    direct = await backend.pool.fetch(UpstreamRequest("GET", "/index.html", accept), timeout=20)
    headers = {"Authorization": f"Bearer {running.key}", "Accept-Encoding": "gzip"}
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.get(f"{running.url}/upstream/m/index.html", headers=headers) as response,
    ):
        assert response.headers["Content-Encoding"] == "gzip"
        assert "Accept-Encoding" in response.headers.getall("Vary")
        packed = await response.read()
    assert packed == direct.body
    assert b"<html" in gzip.decompress(packed)
