"""A llama-server that dies: its clients and /chat/errors are told why, never how a socket felt."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.backends.watchdog import Patience
from gateway.tasks import spawn
from tests.harness import DEMO_GGUF, MakeGateway, Running, fake_model, opened

MESSAGES = [{"role": "user", "content": "hi"}]
#: What each dialect asks with.
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "hi"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 9},
}
KILLED = "was killed (SIGKILL), often by the system when memory runs out"


def says_why(text: str, reason: str = KILLED) -> bool:
    assert not re.search("refused|lost|shut down|connect", text), text
    return reason in text


async def errors(running: Running) -> list[str]:
    _, answer = await running.json("GET", "/chat/errors")
    return [error["message"] for error in answer["errors"]]


async def broken_stream(running: Running, path: str, body: dict[str, Any]) -> str:
    """What a stream that breaks has brought: its HTTP is cut off, but where its API says so."""
    text, cut_off = b"", False
    async with running.request("POST", path, json={"model": "m", "stream": True, **body}) as got:
        assert got.status == 200
        try:
            async for piece in got.content.iter_any():
                text += piece
        except aiohttp.ClientPayloadError:
            cut_off = True
    says_so = text.rpartition(b"event: ")[2].startswith(b"response.failed\n")
    assert (cut_off, says_so) == ((False, True) if path == "/v1/responses" else (True, False))
    return text.decode()


@pytest.mark.parametrize("path", ROUTES)
async def test_a_stream_ends_with_the_reason(
    make_gateway: MakeGateway, tmp_path: Path, path: str
) -> None:
    async with make_gateway({"m": fake_model(tmp_path, chunks=9, die_after=3)}) as running:
        text = await broken_stream(running, path, ROUTES[path])
        assert "word2" in text
        assert says_why(text.rpartition("data: ")[2])
        assert all(says_why(message) for message in await errors(running))


@pytest.mark.parametrize("path", ROUTES)
async def test_so_does_an_answer_that_is_not_streamed(
    make_gateway: MakeGateway, tmp_path: Path, path: str
) -> None:
    async with make_gateway({"m": fake_model(tmp_path, die=1)}) as running:
        status, answer = await running.json("POST", path, json={"model": "m", **ROUTES[path]})
        assert status == 502
        assert says_why(json.dumps(answer))
        told = await errors(running)
        assert len(told) == 3  # each of both deaths, and the request
        assert all(says_why(message) for message in told)


async def test_so_do_the_routes_beside(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway({"m": fake_model(tmp_path, die=1)}) as running:
        body = {"model": "m", "content": "x"}
        status, answer = await running.json("POST", "/tokenize", json=body)
        assert (status, says_why(json.dumps(answer))) == (502, True)
        status, answer = await running.json("GET", "/chat/ask?question=x&model=m")
        assert (status, says_why(json.dumps(answer))) == (502, True)


async def test_so_does_an_upload_which_is_not_sent_again(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    model = fake_model(tmp_path)
    model["mmproj"] = model["params"]["model"]  # it takes sounds
    async with make_gateway({"m": model}) as running:
        assert (await running.chat("m"))[0] == 200
        backend = running.gateway.scheduler.backend("m")
        assert backend is not None
        assert backend.pid is not None
        begun = asyncio.Event()

        async def form() -> Any:
            yield b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
            begun.set()
            yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            await asyncio.sleep(60)  # it never ends by itself

        upload = spawn(
            running.json(
                "POST",
                "/v1/audio/transcriptions",
                data=form(),
                headers={"Content-Type": "multipart/form-data; boundary=x"},
            ),
            name="upload",
        )
        await begun.wait()
        while not backend.pool.exchanges:
            await asyncio.sleep(0.01)
        os.kill(backend.pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            status, answer = await upload
        assert (status, says_why(json.dumps(answer))) == (502, True)


async def test_requests_right_after_a_death_are_served_by_the_next_one(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": {**fake_model(tmp_path), "parallel": 8}}) as running:
        assert (await running.chat("m"))[0] == 200
        backend = running.gateway.scheduler.backend("m")
        assert backend is not None
        assert backend.pid is not None
        os.kill(backend.pid, signal.SIGKILL)
        answers = await asyncio.gather(*(running.chat("m") for _ in range(8)))
        assert [status for status, _ in answers] == [200] * 8
        assert backend.starts == 2
        (told,) = await errors(running)
        assert says_why(told)


async def test_one_that_does_nothing_says_so_too(make_gateway: MakeGateway, tmp_path: Path) -> None:
    patience = Patience(interval=0.1, deaf_after=20, stuck_after=0.5)
    async with make_gateway({"m": fake_model(tmp_path, hang=1)}, patience=patience) as running:
        status, answer = await running.chat("m")
        assert status == 502
        assert says_why(json.dumps(answer), "with requests running and was ended")
        assert all(says_why(m, "has done nothing for") for m in await errors(running))


async def test_a_hung_stream_says_so_too(make_gateway: MakeGateway, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    patience = Patience(interval=0.1, deaf_after=20, stuck_after=0.5)
    models = {"m": fake_model(tmp_path, gate=gate)}
    async with make_gateway(models, patience=patience) as running:
        text = await broken_stream(running, "/v1/chat/completions", {"messages": MESSAGES})
        assert says_why(text.rpartition("data: ")[2], "has done nothing for")
        with opened(gate):
            pass


async def test_stream_says_that_a_real_llama_server_was_killed(make_gateway: MakeGateway) -> None:
    model = {"params": {"model": DEMO_GGUF, "ctxSize": 2048, "threads": 1}}
    async with make_gateway({"m": model}, llama_server="auto") as running:
        client = running.openai()
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "Count."}], stream=True
        )
        with pytest.raises(Exception, match=r"was killed \(SIGKILL\)"):  # noqa: PT012
            async for number, _ in _numbered(stream):
                if number == 3:
                    backend = running.gateway.scheduler.backend("m")
                    assert backend is not None
                    assert backend.pid is not None
                    os.kill(backend.pid, signal.SIGKILL)
        assert all(says_why(message) for message in await errors(running))


async def _numbered(stream: Any) -> Any:
    number = 0
    async for item in stream:
        yield number, item
        number += 1
