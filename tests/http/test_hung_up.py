"""Answers that are hung up on are paid for, prompt and tokens so far: in any dialect and phase."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.access import accounting
from gateway.access.accounting import Record
from gateway.access.rate_limits import KeyLimits, Limiter
from gateway.errors import RateLimited
from gateway.pipeline import metered
from gateway.proxy.prompt_size import estimate
from gateway.tasks import cancel_and_wait, spawn
from tests.elsewhere import STREAM_HEAD, Asked, Elsewhere, event
from tests.harness import MakeGateway, Running, fake_model
from tests.scripted import until

STORY = "the story and a the " * 20
#: A random model says something only when it is held to it.
SAYS = {"grammar": "root ::= [a-z ]*", "ignore_eos": True, "temperature": 0}
CHATS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": STORY}], "max_tokens": 7000},
    "/v1/completions": {"prompt": STORY, "max_tokens": 7000},
    "/completion": {"prompt": STORY, "n_predict": 7000},
    "/v1/responses": {"input": STORY, "max_output_tokens": 7000},
    "/v1/messages": {"messages": [{"role": "user", "content": STORY}], "max_tokens": 7000},
}


async def limited(running: Running, **limits: int) -> str:
    assert running.gateway.ring is not None
    return (await running.gateway.ring.create("limited", limits=limits))[1]


async def recorded(running: Running, number: int = 1) -> Record:
    """The last of so many records, as soon as they are there."""
    kept = running.gateway.accounting
    async with asyncio.timeout(60):
        while len(kept.recent) < number:
            await asyncio.sleep(0.01)
    assert len(kept.recent) == number
    assert kept.unsettled == 0
    return kept.recent[-1]


async def hang_up_in(response: aiohttp.ClientResponse, pieces: int) -> None:
    """Read so many pieces of an answer and go."""
    assert response.status == 200
    for _ in range(pieces):
        assert await response.content.readany()
    response.close()


async def on_its_way(running: Running) -> None:
    """Return when a request has been sent to the model "m"."""
    scheduler = running.gateway.scheduler
    await until(scheduler, lambda: scheduler.in_flight > 0)
    backend = scheduler.backend("m")
    assert backend is not None
    async with asyncio.timeout(10):
        while not backend.pool._busy:  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)


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
async def test_a_stream(real: Running, path: str) -> None:
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
async def test_an_unstreamed_answer(real: Running, path: str) -> None:
    prompt = await whole_prompt(real, path)
    body = {"model": "m", **CHATS[path], **SAYS}
    asked = spawn(real.json("POST", path, json=body), name="ask")
    await on_its_way(real)
    await cancel_and_wait(asked)
    record = await recorded(real, 2)
    assert (record.status, record.usage.prompt_tokens) == (499, prompt)


@pytest.mark.parametrize("path", CHATS)
async def test_an_unstreamed_answer_has_written_what_its_slot_has(real: Running, path: str) -> None:
    """Nothing of it had come, and hours of writing cost what the prompt did."""
    body = {"model": "m", **CHATS[path], **SAYS}
    asked = spawn(real.json("POST", path, json=body), name="ask")
    await writing(real, 50)
    await cancel_and_wait(asked)
    assert (await recorded(real)).usage.completion_tokens >= 50


async def test_what_a_stream_keeps_back_was_written(real: Running) -> None:
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


async def test_the_numbers_of_the_answer_itself_count_first(real: Running) -> None:
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
async def test_several_answers_are_several(
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


# --- with scripted backends ----------------------------------------------------------------

CHAT = {"model": "m", "messages": [{"role": "user", "content": STORY}]}
#: What is guessed where nobody counts.
GUESS = -(-len("user" + STORY) // 3)


async def test_before_the_first_byte(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway({"m": fake_model(tmp_path, hang=1)}) as running:
        key = await limited(running, tpm=100, concurrency=1)
        for number, stream in enumerate((True, False), 1):
            body = {**CHAT, "stream": stream}
            asked = spawn(
                running.json("POST", "/v1/chat/completions", json=body, key=key), name="ask"
            )
            await on_its_way(running)
            await cancel_and_wait(asked)
            record = await recorded(running, number)
            assert record.status == 499
            assert record.usage[:2] == (GUESS, 0)
            if number == 1:
                async with running.request(
                    "POST", "/v1/chat/completions", json=CHAT, key=key
                ) as response:
                    assert response.status == 429
                key = await limited(running, tpm=100)


async def test_with_tools_that_nest_deeply(make_gateway: MakeGateway, tmp_path: Path) -> None:
    """What can't be counted is guessed, whatever it is."""
    schema: dict[str, Any] = {}
    for _ in range(240):
        schema = {"a": schema}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    limits = {"request": {"schema_depth": 250}}
    async with make_gateway({"m": fake_model(tmp_path, hang=1)}, limits=limits) as running:
        body = {**CHAT, "tools": [tool], "stream": True}
        asked = spawn(running.json("POST", "/v1/chat/completions", json=body), name="ask")
        await on_its_way(running)
        await cancel_and_wait(asked)
        assert (await recorded(running)).usage.prompt_tokens > 240


async def test_what_takes_too_long_to_count_is_guessed_elsewhere(
    make_gateway: MakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the loop: bodies may be long, and many have waited for the same."""
    monkeypatch.setattr(accounting, "_PATIENCE", 0.05)
    guessed_in = set()

    def noting(*arguments: Any) -> int:
        guessed_in.add(threading.current_thread())
        return estimate(*arguments)

    monkeypatch.setattr(metered, "estimate", noting)
    async with make_gateway({"m": fake_model(tmp_path, hang=1)}) as running:
        body = {"model": "m", "prompt": "word " * 20_000, "stream": True}
        asked = spawn(running.json("POST", "/v1/completions", json=body), name="ask")
        await on_its_way(running)
        backend = running.gateway.scheduler.backend("m")
        assert backend is not None
        assert backend.pid is not None
        os.kill(backend.pid, signal.SIGSTOP)
        try:
            await cancel_and_wait(asked)
            assert (await recorded(running)).usage.prompt_tokens == -(-100_000 // 3)
        finally:
            os.kill(backend.pid, signal.SIGCONT)
    assert guessed_in
    assert threading.main_thread() not in guessed_in


@pytest.mark.parametrize("stream", ["true", "false"])
async def test_chat_ask(make_gateway: MakeGateway, tmp_path: Path, stream: str) -> None:
    models = {"m": fake_model(tmp_path, chunks=9, gate=tmp_path / "gate", gate_at=3)}
    os.mkfifo(tmp_path / "gate")
    async with make_gateway(models) as running:
        path = f"/chat/ask?question={STORY}&stream={stream}"
        if stream == "true":
            async with running.request("GET", path) as response:
                await response.content.readuntil(b"word2 ")
                response.close()
        else:
            asked = spawn(running.json("GET", path), name="ask")
            await on_its_way(running)
            await cancel_and_wait(asked)
        record = await recorded(running)
        assert record.status == 499
        assert record.usage.prompt_tokens == GUESS
        assert record.usage.completion_tokens == 3 or stream == "false"


async def test_in_the_queue_it_costs_nothing(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway({"m": fake_model(tmp_path, hang=1)}) as running:
        scheduler = running.gateway.scheduler
        first = spawn(running.chat("m"), name="first")
        await until(scheduler, lambda: scheduler.in_flight > 0)
        for stream in (True, False):
            waiting = spawn(running.chat("m", STORY, stream=stream), name="waiting")
            await until(scheduler, lambda: scheduler.status()[0].queued > 0)
            await cancel_and_wait(waiting)
            await until(scheduler, lambda: scheduler.status()[0].queued == 0)
        record = await recorded(running, 2)
        assert (record.status, record.usage[:2]) == (499, (0, 0))
        await cancel_and_wait(first)


async def test_the_gateway_stops(make_gateway: MakeGateway, tmp_path: Path) -> None:
    """What was answered until then is in the store."""
    models = {"m": fake_model(tmp_path, chunks=500, pause=0.01)}
    async with make_gateway(models) as running:
        database = running.gateway.settings.database
        response = await running.request(
            "POST", "/v1/chat/completions", json={**CHAT, "stream": True}
        )
        await response.content.readuntil(b"word9 ")
    connection = sqlite3.connect(database)
    ((requests, prompt, completion),) = connection.execute(
        "SELECT requests, prompt_tokens, completion_tokens FROM usage"
    ).fetchall()
    connection.close()
    assert (requests, prompt) == (1, GUESS)
    assert completion >= 10


async def test_a_server_elsewhere_is_not_asked(make_gateway: MakeGateway) -> None:
    """It may have no such route, and every request may cost money there."""
    gone = asyncio.Event()

    async def story(asked: Asked) -> None:
        asked.writer.write(STREAM_HEAD + event("a ") + event("b "))
        await gone.wait()

    async with Elsewhere() as server:
        server.answers["/v1/chat/completions"] = story
        async with make_gateway({"m": {"url": server.url}}) as running:
            async with running.request(
                "POST", "/v1/chat/completions", json={**CHAT, "stream": True}
            ) as response:
                await hang_up_in(response, 1)
            record = await recorded(running)
            assert record.status == 499
            assert record.usage.prompt_tokens == GUESS
            assert {one.target for one in server.asked} == {"/v1/chat/completions"}
            gone.set()


async def test_a_stream_that_tells_no_usage_is_paid_for(make_gateway: MakeGateway) -> None:
    """OpenAI's own servers and vLLM tell it only where ``stream_options`` asks for it."""

    async def story(asked: Asked) -> None:
        asked.writer.write(STREAM_HEAD + event("a ") + event("b ") + b"e\r\ndata: [DONE]\n\n\r\n")
        asked.writer.write(b"0\r\n\r\n")

    async with Elsewhere() as server:
        server.answers["/v1/chat/completions"] = story
        async with make_gateway({"m": {"url": server.url}}) as running:
            key = await limited(running, tpd=GUESS, concurrency=1)
            body = {**CHAT, "stream": True}
            async with running.request(
                "POST", "/v1/chat/completions", key=key, json=body
            ) as response:
                assert (await response.read()).endswith(b"data: [DONE]\n\n")
            record = await recorded(running)
            assert (record.status, record.usage.prompt_tokens) == (200, GUESS)
            assert (await running.json("POST", "/v1/chat/completions", key=key, json=body))[
                0
            ] == 429


async def test_a_failed_load_costs_nothing(make_gateway: MakeGateway, tmp_path: Path) -> None:
    models = {
        "bad": fake_model(tmp_path, exit=3),
        "slow": fake_model(tmp_path, never_healthy=1),
        "m": fake_model(tmp_path),
    }
    async with make_gateway(models, limits={"load_timeout": "1s", "heartbeat": "100ms"}) as running:
        key = await limited(running, rpm=2, tpm=100, tpd=100, concurrency=1)
        for _ in range(2):
            for model, stream in (("bad", False), ("bad", True), ("slow", True)):
                body = {**CHAT, "model": model, "stream": stream}
                async with running.request(
                    "POST", "/v1/chat/completions", json=body, key=key
                ) as response:
                    if response.status == 200:  # it was kept waiting, and told in the stream
                        text = b""
                        with pytest.raises(aiohttp.ClientPayloadError):
                            text = await response.content.read()
                        assert b"[DONE]" not in text
                    else:
                        assert response.status == 500
                        assert response.headers["x-ratelimit-remaining-requests"] == "2"
        async with running.request("POST", "/v1/chat/completions", json=CHAT, key=key) as response:
            assert response.status == 200
            assert response.headers["x-ratelimit-remaining-requests"] == "1"
        records = running.gateway.accounting.recent
        assert {record.usage[:2] for record in records[:-1]} == {(0, 0)}


# --- the limiter ---------------------------------------------------------------------------


def test_tokens_that_are_still_counted_are_held_back() -> None:
    today = 0
    limiter = Limiter(lambda key_id: today)
    for limits in (KeyLimits(tpm=100, concurrency=1), KeyLimits(tpd=100, concurrency=1)):
        key = str(limits)
        grant = limiter.admit(key, limits)
        grant.leave()
        grant.reserve(100)
        with pytest.raises(RateLimited) as refused:
            limiter.admit(key, limits)
        assert refused.value.param in ("tpm", "tpd")
        grant.reserve(-100)
        grant.close(10)
        limiter.admit(key, limits)  # its place was given back once
        with pytest.raises(RateLimited) as refused:
            limiter.admit(key, limits)
        assert refused.value.param == "concurrency"
