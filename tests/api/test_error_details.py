"""What is wrong with this machine is for its administrators; other keys learn what failed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.harness import MakeGateway, Running, fake_model
from tests.wire import connected, head, with_tls

REFUSAL = "this fake does not want to start"
CHATS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"prompt": "hi"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9},
}


async def chat_key(running: Running) -> str:
    assert running.gateway.ring is not None
    return (await running.gateway.ring.create("chat only"))[1]


async def said(running: Running, method: str, path: str, **options: Any) -> tuple[str, str]:
    """The message of an error, and the request's id."""
    async with running.request(method, path, **options) as response:
        assert response.status == 500
        error = (await response.json())["error"]
        return error["message"], response.headers["X-Request-Id"]


@pytest.mark.parametrize("path", CHATS)
async def test_failed_load_is_told_in_every_dialect_without_paths(
    make_gateway: MakeGateway, tmp_path: Path, path: str, subtests: pytest.Subtests
) -> None:
    lost = fake_model(tmp_path)
    lost["params"]["model"] = "TheBloke\\nowhere.gguf"
    async with make_gateway({"bad": fake_model(tmp_path, exit=3), "lost": lost}) as running:
        key = await chat_key(running)
        # Several, so that the last is about a model that isn't started any more.
        for what in (["status 3"], ["status 3"], ["status 3", "failed 4 times"]):
            with subtests.test(f"{what!r:.80}"):
                body = {**CHATS[path], "model": "bad"}
                message, request_id = await said(running, "POST", path, json=body, key=key)
                if "4 times" in what[-1]:
                    while "4 times" not in message:
                        message, request_id = await said(running, "POST", path, json=body, key=key)
                assert all(word in message for word in what)
                assert REFUSAL not in message
                assert request_id in message
                _, log = await running.json("GET", "/chat/errors")
                (entry,) = [one for one in log["errors"] if one["request_id"] == request_id]
                assert REFUSAL in entry["message"]
        message, _ = await said(running, "POST", path, json=body)
        assert REFUSAL in message, "an administrator sees all"
        body["model"] = "lost"
        message, _ = await said(running, "POST", path, json=body, key=key)
        assert "the model file of 'lost' does not exist" in message
        assert "nowhere.gguf" not in message
        assert "/" not in message.replace("/chat/errors", "")
        message, _ = await said(running, "POST", path, json=body)
        assert "nowhere.gguf" in message


@pytest.mark.parametrize("path", CHATS)
async def test_stream_tells_details_of_a_death_to_administrators_only(
    make_gateway: MakeGateway, tmp_path: Path, path: str
) -> None:
    async with make_gateway({"m": fake_model(tmp_path, chunks=9, die_after=3)}) as running:
        for key, whole in ((await chat_key(running), False), (running.key, True)):
            body = {**CHATS[path], "model": "m", "stream": True}
            async with running.request("POST", path, json=body, key=key) as response:
                assert response.status == 200
                text = await read_all(response)
                request_id = response.headers["X-Request-Id"]
            errors = [line for line in text.splitlines() if b"SIGKILL" in line]
            assert errors, text
            for line in errors:
                assert (b"fake llama-server starts" in line) is whole
                assert (request_id.encode() in line) is not whole


async def test_load_that_fails_behind_an_open_stream_tells_details_to_administrators_only(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    models = {"bad": fake_model(tmp_path, never_healthy=1)}
    async with make_gateway(models, limits={"load_timeout": "1s", "heartbeat": "100ms"}) as running:
        key = await chat_key(running)

        async def told(path: str, asks: str) -> tuple[str, str, bytes]:
            body = {**CHATS[path], "model": "bad", "stream": True}
            async with running.request("POST", path, json=body, key=asks) as response:
                assert response.status == 200
                return path, response.headers["X-Request-Id"], await read_all(response)

        for asks, whole in ((key, False), (running.key, True)):
            await running.json("POST", "/loadModel", json={"model": "bad"})  # forgets deaths
            for path, request_id, text in await asyncio.gather(*(told(p, asks) for p in CHATS)):
                with subtests.test(f"{path!r:.80}"):
                    errors = [line for line in text.splitlines() if b"made no progress" in line]
                    assert errors, text
                    for line in errors:  # also where one error is said in several ways
                        assert (b"fake llama-server starts" in line) is whole
                        assert (request_id.encode() in line) is not whole


@pytest.mark.parametrize("how", ["it dies", "it never comes"])
@pytest.mark.parametrize("query", ["", "?by=aiohttp"])
@pytest.mark.parametrize("tls", [False, True])
async def test_a_failed_stream_whose_http_ends_leaves_its_connection(
    make_gateway: MakeGateway, tmp_path: Path, how: str, query: str, tls: bool
) -> None:
    """Responses say in their own words that they have failed; what keep-alive promised, holds."""
    if how == "it dies":
        model, settings = fake_model(tmp_path, chunks=9, die_after=3), {}
    else:
        model = fake_model(tmp_path, never_healthy=1)
        settings = {"limits": {"load_timeout": "1s", "heartbeat": "100ms"}}
    options = {}
    if tls:
        settings["tls"], options["ssl"] = with_tls(tmp_path)
    async with make_gateway({"m": model}, **settings) as running:
        body = json.dumps({"model": "m", "input": "hi", "stream": True}).encode()
        asked = (
            head(running, f"POST /v1/responses{query} HTTP/1.1", f"Content-Length: {len(body)}")
            + body
        )
        async with connected(running, **options) as client:
            for _ in range(2):
                client.send(asked)
                async with asyncio.timeout(20):
                    answered = await client.reader.readuntil(b"\r\n\r\n")
                    assert answered.startswith(b"HTTP/1.1 200 ")
                    assert b"connection: close" not in answered.lower()
                    assert b"response.failed" in await client.reader.readuntil(b"\r\n0\r\n\r\n")
            client.send(head(running, "GET /ping HTTP/1.1"))
            assert (await client.answer())[0] == 200


async def read_all(response: aiohttp.ClientResponse) -> bytes:
    text = b""
    try:
        async for piece in response.content.iter_any():
            text += piece
    except aiohttp.ClientPayloadError:
        pass
    return text


async def test_status_tells_each_what_is_theirs(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway({"bad": fake_model(tmp_path, exit=3)}) as running:
        await running.json("POST", "/loadModel", json={"model": "bad"})
        for key, whole in ((await chat_key(running), False), (running.key, True)):
            async with running.request("GET", "/status", key=key) as response:
                text = (await response.content.readuntil(b"\n\n")).partition(b"data: ")[2]
            status = json.loads(text)
            assert status["status"] == "Error"
            assert "exited with status 3" in status["info"]
            assert (REFUSAL in status["info"]) is whole
