"""Answers of a real llama-server that are hung up on are paid for, prompt and tokens so far."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.tasks import cancel_and_wait, spawn
from tests.harness import MakeGateway, Running
from tests.http.hanging_up import STORY, hang_up_in, limited, on_its_way, recorded

#: A random model says something only when it is held to it.
SAYS = {"grammar": "root ::= [a-z ]*", "ignore_eos": True, "temperature": 0}


CHATS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": STORY}], "max_tokens": 7000},
    "/v1/completions": {"prompt": STORY, "max_tokens": 7000},
    "/completion": {"prompt": STORY, "n_predict": 7000},
    "/v1/responses": {"input": STORY, "max_output_tokens": 7000},
    "/v1/messages": {"messages": [{"role": "user", "content": STORY}], "max_tokens": 7000},
}


@pytest.fixture
async def real(make_gateway: MakeGateway, tiny_model: Path) -> AsyncIterator[Running]:
    model = {"params": {"model": str(tiny_model), "ctxSize": 8192, "threads": 1}}
    async with make_gateway({"m": model}, llama_server="auto") as running:
        await running.json("POST", "/loadModel", json={"model": "m"})
        yield running


async def whole_prompt(running: Running, path: str) -> int:
    """What llama-server says that the prompt has, when its answer is waited for."""
    short = {key: 1 for key in CHATS[path] if key.startswith(("max_", "n_"))}
    body = {"model": "m", **CHATS[path], **short, "grammar": "root ::= [a-z]", "temperature": 0}
    status, answer = await running.json("POST", path, json=body)
    assert status == 200, answer
    return running.gateway.accounting.recent[-1].usage.prompt_tokens


@pytest.mark.parametrize("path", CHATS)
async def test_stream_that_is_hung_up_on_is_paid_for(real: Running, path: str) -> None:
    prompt = await whole_prompt(real, path)
    assert prompt > 80
    body = {"model": "m", **CHATS[path], **SAYS, "stream": True}
    async with real.request("POST", path, json=body) as response:
        await hang_up_in(response, 12)
    record = await recorded(real, 2)
    assert record.status == 499
    assert record.usage.prompt_tokens == prompt
    assert 4 < record.usage.completion_tokens < 7000


@pytest.mark.parametrize("path", CHATS)
async def test_unstreamed_answer_that_is_hung_up_on_is_paid_for(real: Running, path: str) -> None:
    prompt = await whole_prompt(real, path)
    body = {"model": "m", **CHATS[path], **SAYS}
    asked = spawn(real.json("POST", path, json=body), name="ask")
    await on_its_way(real)
    await cancel_and_wait(asked)
    record = await recorded(real, 2)
    assert (record.status, record.usage.prompt_tokens) == (499, prompt)


@pytest.mark.parametrize("path", CHATS)
async def test_unstreamed_answer_has_written_what_its_slot_has(real: Running, path: str) -> None:
    """Nothing of it had come, and hours of writing cost what the prompt did."""
    body = {"model": "m", **CHATS[path], **SAYS}
    asked = spawn(real.json("POST", path, json=body), name="ask")
    await writing(real, 50)
    await cancel_and_wait(asked)
    assert (await recorded(real)).usage.completion_tokens >= 50


async def test_what_a_stream_keeps_back_counts_as_written(real: Running) -> None:
    """A text that may become the stop sequence comes in no event."""
    path = "/v1/chat/completions"
    kept = {"grammar": 'root ::= "z"*', "stop": ["z" * 7000], "stream": True}
    body = {"model": "m", **CHATS[path], **SAYS, **kept}
    async with real.request("POST", path, json=body) as response:
        await writing(real, 50)
        await hang_up_in(response, 1)
    assert (await recorded(real)).usage.completion_tokens >= 50


async def test_what_a_stream_keeps_back_counts_behind_numbers_on_the_way(real: Running) -> None:
    """They are those of the last event, and a text that may become the stop sequence is in none."""
    path = "/v1/chat/completions"
    kept = {"grammar": 'root ::= "z"*', "stop": ["z" * 7000], "return_progress": True}
    body = {"model": "m", **CHATS[path], **SAYS, **kept, "stream": True, "timings_per_token": True}
    async with real.request("POST", path, json=body) as response:
        await writing(real, 50)
        await hang_up_in(response, 1)
    assert (await recorded(real)).usage.completion_tokens >= 50


async def test_what_goes_on_beside_a_stream_is_counted_to_its_end(
    make_gateway: MakeGateway, tiny_model: Path
) -> None:
    """llama-server notices who has gone when it has had nothing to tell anybody for a second."""
    model = {
        "params": {"model": str(tiny_model), "ctxSize": 16384, "threads": 1},
        "parallel": 2,
    }
    path = "/v1/chat/completions"
    async with make_gateway({"m": model}, llama_server="auto") as running:
        accounting = running.gateway.accounting
        other = {"model": "m", **CHATS["/completion"], **SAYS, "stream": True}
        async with running.request("POST", "/completion", json=other) as stream:
            reading = spawn(stream.read(), name="read")
            key = {"Authorization": f"Bearer {await limited(running, tpm=10**6)}"}
            body = {"model": "m", **CHATS[path], **SAYS, "max_tokens": 2500}
            asked = spawn(running.json("POST", path, json=body, headers=key), name="ask")
            await writing(running, 50, slots=2)
            await cancel_and_wait(asked)
            first = await recorded(running)
            assert first.usage.completion_tokens < 1000
            async with asyncio.timeout(60):
                while accounting.tokens_today(first.key_id) < 1500:
                    assert not reading.done()
                    await asyncio.sleep(0.05)
            with contextlib.suppress(aiohttp.ClientError):
                stream.close()
                await reading


async def writing(running: Running, tokens: int, slots: int = 1) -> None:
    """Return when so many slots have written so many."""
    async with asyncio.timeout(30):
        while True:
            _, said = await running.json("GET", "/slots?model=m")
            told = [slot["next_token"][0] for slot in said if slot["is_processing"]]
            if sum(one["n_decoded"] >= tokens for one in told) >= slots:
                return
            await asyncio.sleep(0.01)


async def test_numbers_of_the_answer_itself_count_first(real: Running) -> None:
    """llama-server tells them on the way, to who asks for it, and Anthropic's clients always."""
    path = "/v1/chat/completions"
    body = {"model": "m", **CHATS[path], **SAYS, "stream": True, "timings_per_token": True}
    async with real.request("POST", path, json=body) as response:
        await hang_up_in(response, 12)
    record = await recorded(real)
    assert record.usage.tokens_per_second
    assert record.usage.prompt_tokens > 80
    assert record.usage.completion_tokens > 4


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": STORY}], "n": 3}),
        ("/v1/completions", {"prompt": STORY, "n": 3}),
        ("/v1/completions", {"prompt": ["a", STORY, STORY]}),
        ("/completion", {"prompt": ["a", STORY, STORY]}),
        ("/completion", {"prompt": STORY, "n_cmpl": 3}),
    ],
)
async def test_several_answers_are_paid_for_as_several(
    make_gateway: MakeGateway, tiny_model: Path, path: str, body: dict[str, Any], stream: bool
) -> None:
    """llama-server tells the tokens of one of them, and of one prompt."""
    model = {"params": {"model": str(tiny_model), "ctxSize": 8192, "threads": 1}, "parallel": 3}
    async with make_gateway({"m": model}, llama_server="auto") as running:
        length = {"max_tokens": 20, "n_predict": 20}
        async with running.request(
            "POST", path, json={"model": "m", **body, **SAYS, **length, "stream": stream}
        ) as response:
            assert response.status == 200, await response.text()
            await response.read()
        record = await recorded(running)
        assert record.status == 200
        assert record.usage.completion_tokens == 60
        if isinstance(body.get("prompt"), list):
            assert record.usage.prompt_tokens > 1.5 * await whole_prompt(running, "/completion")


async def test_hanging_up_always_gets_nobody_over_the_limit(real: Running) -> None:
    """The bug report: 40 tokens a day, and 96 were had without the prompts."""
    key = await limited(real, tpd=400)
    path = "/v1/chat/completions"
    prompt = await whole_prompt(real, path)
    body = {"model": "m", **CHATS[path], **SAYS, "stream": True}
    answered = 0
    while True:
        async with real.request("POST", path, json=body, key=key) as response:
            if response.status == 429:
                assert (await response.json())["error"]["param"] == "tpd"
                break
            await hang_up_in(response, 3)
            answered += 1
    assert answered <= -(-400 // prompt)
    assert answered > 1
