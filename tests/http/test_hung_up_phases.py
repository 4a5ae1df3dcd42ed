"""Requests that are hung up on in any phase are paid for as far as they have cost something."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import threading
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.access import accounting
from gateway.access.rate_limits import KeyLimits, Limiter
from gateway.errors import RateLimited
from gateway.pipeline import metered
from gateway.proxy.prompt_size import estimate
from gateway.tasks import cancel_and_wait, spawn
from tests.harness import MakeGateway, fake_model
from tests.http.hanging_up import STORY, hang_up_in, limited, on_its_way, recorded
from tests.remote_server import STREAM_HEAD, Asked, RemoteServer, event
from tests.scripted import until

# --- with scripted backends ----------------------------------------------------------------

CHAT = {"model": "m", "messages": [{"role": "user", "content": STORY}]}


#: What is guessed where nobody counts.
GUESS = -(-len("user" + STORY) // 3)


async def test_prompt_is_paid_for_before_the_first_byte(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
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


async def test_prompt_with_deeply_nested_tools_is_counted(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
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
    monkeypatch.setattr(accounting, "PATIENCE", 0.05)
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
async def test_question_that_is_hung_up_on_is_paid_for(
    make_gateway: MakeGateway, tmp_path: Path, stream: str
) -> None:
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


async def test_hanging_up_in_the_queue_costs_nothing(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
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


async def test_answer_cut_by_a_stopping_gateway_is_paid_for(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
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


async def test_server_elsewhere_is_not_asked_what_it_wrote(make_gateway: MakeGateway) -> None:
    """It may have no such route, and every request may cost money there."""
    gone = asyncio.Event()

    async def story(asked: Asked) -> None:
        asked.writer.write(STREAM_HEAD + event("a ") + event("b "))
        await gone.wait()

    async with RemoteServer() as server:
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


async def test_stream_that_tells_no_usage_is_paid_for(make_gateway: MakeGateway) -> None:
    """OpenAI's own servers and vLLM tell it only where ``stream_options`` asks for it."""

    async def story(asked: Asked) -> None:
        asked.writer.write(STREAM_HEAD + event("a ") + event("b ") + b"e\r\ndata: [DONE]\n\n\r\n")
        asked.writer.write(b"0\r\n\r\n")

    async with RemoteServer() as server:
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


@pytest.mark.parametrize(
    ("path", "last"),
    [("/v1/chat/completions", b"data: [DONE]"), ("/api/chat", b'"done":true')],
)
async def test_answer_whose_client_leaves_at_its_last_event_is_whole(
    make_gateway: MakeGateway, path: str, last: bytes
) -> None:
    """Clients close there, some before the end of the backend's response has come."""
    gone = asyncio.Event()
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n'
    end = (
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
        + usage
        + b"data: [DONE]\n\n"
    )

    async def story(asked: Asked) -> None:
        asked.writer.write(STREAM_HEAD + event("a ") + event("b "))
        asked.writer.write(b"%x\r\n%b\r\n" % (len(end), end))
        await gone.wait()

    async with RemoteServer() as server:
        server.answers["/v1/chat/completions"] = story
        async with make_gateway({"m": {"url": server.url}}) as running:
            body = {**CHAT, "stream": True}
            async with running.request("POST", path, json=body) as response:
                await response.content.readuntil(last)
                response.close()
            record = await recorded(running)
            assert (record.status, record.usage[:2]) == (200, (7, 2))
            gone.set()


async def test_failed_load_costs_nothing(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    models = {
        "bad": fake_model(tmp_path, exit=3),
        "slow": fake_model(tmp_path, never_healthy=1),
        "m": fake_model(tmp_path),
    }
    async with make_gateway(models, limits={"load_timeout": "1s", "heartbeat": "100ms"}) as running:
        key = await limited(running, rpm=2, tpm=100, tpd=100, concurrency=1)
        for _ in range(2):
            for model, stream in (("bad", False), ("bad", True), ("slow", True)):
                with subtests.test(f"{model!r:.80}"):
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
