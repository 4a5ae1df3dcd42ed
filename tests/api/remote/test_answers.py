"""What clients get of the answers of a server elsewhere."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.tls.selfsigned import self_signed
from tests.api.remote.entries import CHAT, SECRET, USER, entry
from tests.harness import MakeGateway, Running
from tests.remote_server import STREAM_END, STREAM_HEAD, Asked, RemoteServer, event
from tests.scripted import until


async def closed(running: Running) -> None:
    await until(running.gateway.scheduler, lambda: running.gateway.scheduler.in_flight == 0)


def chunked(status: int, body: bytes, headers: str) -> Any:
    async def answer(asked: Asked) -> None:
        head = f"HTTP/1.1 {status} X\r\n{headers}Transfer-Encoding: chunked\r\n\r\n"
        asked.writer.write(head.encode())
        for piece in (body[:3], body[3:]):
            asked.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await asked.writer.drain()
        asked.writer.write(b"0\r\n\r\n")

    return answer


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("later", ["17", None])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_client_is_told_when_to_come_back_on_each_route(
    make_gateway: MakeGateway, server: RemoteServer, status: int, later: str | None, framing: str
) -> None:
    """On each route, whether it was to be a stream or not; in the shape of its API."""
    body = json.dumps({"error": {"message": "not now", "type": "t"}}).encode()
    head = {} if later is None else {"Retry-After": later}
    answer: Any = (status, body, head)
    if framing == "chunked":
        answer = chunked(status, body, "".join(f"{n}: {v}\r\n" for n, v in head.items()))
    paths = (CHAT, "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings")
    for path in (*paths, "/tokenize"):
        server.answers[path] = answer
    fields = {"messages": [USER], "prompt": "x", "input": "x", "content": "x", "max_tokens": 1}
    async with make_gateway({"m": entry(server)}) as running:
        for path in (*paths, "/tokenize"):
            for stream in (True, False):
                sent = {"model": "m", "stream": stream, **fields}
                async with running.request("POST", path, json=sent) as response:
                    assert response.status == status, path
                    assert response.headers.getall("Retry-After") == [later or "5"], path
                    error = (await response.json())["error"]
                    assert error["message"] == "not now"
                    assert ("param" in error) == (path != "/v1/messages")
        async with running.request("GET", "/chat/ask?question=hi&model=m") as response:
            assert (response.status, response.headers["Retry-After"]) == (status, later or "5")


async def test_an_error_without_an_end_is_not_collected(
    make_gateway: MakeGateway, server: RemoteServer
) -> None:
    async def endless(asked: Asked) -> None:
        asked.writer.write(b"HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            asked.writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
            await asked.writer.drain()

    server.answers[CHAT] = endless
    async with make_gateway({"m": entry(server)}) as running:
        body = {"model": "m", "messages": [USER]}
        async with running.request("POST", CHAT, json=body) as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "5")
            assert len(await response.content.readexactly(500_000)) == 500_000
        await closed(running)


async def test_errors_keep_status_and_message(
    make_gateway: MakeGateway, server: RemoteServer
) -> None:
    error = {"message": "too fast", "type": "rate", "code": "slow_down", "param": None}
    server.answers[CHAT] = (429, {"error": error}, {"Retry-After": "7"})
    async with make_gateway({"m": entry(server)}) as running:
        body = {"model": "m", "messages": [USER]}
        async with running.request("POST", CHAT, json=body) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "7")
            assert (await response.json())["error"] == error
        server.answers[CHAT] = (404, {"detail": "Not Found"})
        status, answer = await running.chat("m")
        assert (status, answer["error"]["message"]) == (404, "Not Found")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_key_that_is_refused_is_not_the_clients(
    make_gateway: MakeGateway, server: RemoteServer, stream: bool
) -> None:
    # As llama-server has it: whoever asks may see the list of models.
    server.answers[CHAT] = (401, {"error": {"message": f"Invalid key {SECRET}", "code": 401}})
    server.answers["/tokenize"] = (401, b"")
    async with make_gateway({"m": entry(server)}) as running:
        message = "m refuses the gateway's key (`key` in models.json)"
        for path, body in (
            (CHAT, {"model": "m", "messages": [USER], "stream": stream}),
            ("/tokenize", {"model": "m", "content": "a"}),
        ):
            async with running.request("POST", path, json=body) as response:
                assert response.status == 502
                assert response.headers["x-should-retry"] == "false"
                error = (await response.json())["error"]
                assert (error["code"], error["message"]) == ("upstream_key_refused", message)
        status, answer = await running.json("GET", "/chat/ask?question=hi&model=m")
        assert (status, answer["error"]["message"]) == (502, message)
        await closed(running)


async def test_a_server_over_https_is_verified(make_gateway: MakeGateway, tmp_path: Path) -> None:
    self_signed(["127.0.0.1"], tmp_path / "ssl")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ssl/127.0.0.1-crt.pem", tmp_path / "ssl/127.0.0.1-key.pem")
    authority = tmp_path / "ssl/local-ca-crt.pem"

    async def stream(asked: Asked) -> None:
        for piece in (STREAM_HEAD, event("one"), event("two"), STREAM_END):
            asked.writer.write(piece)
            await asked.writer.drain()

    async with RemoteServer(context) as server:
        server.answers[CHAT] = stream
        models = {"m": entry(server, caFile=str(authority)), "strict": entry(server)}
        async with make_gateway(models) as running, running.openai() as client:
            for _ in range(2):
                answer = await client.chat.completions.create(
                    model="m", messages=[USER], stream=True
                )
                texts = [chunk.choices[0].delta.content async for chunk in answer]
                assert texts == ["one", "two"]
            assert server.asked[0].headers["Authorization"] == f"Bearer {SECRET}"
            before = len(server.every)
            status, answer = await running.chat("strict")
            assert status == 502
            assert "its certificate is not trusted" in answer["error"]["message"]
            assert len(server.every) == before


async def test_what_a_server_says_of_its_account_stays_here(
    make_gateway: MakeGateway, server: RemoteServer
) -> None:
    hidden = {
        "Set-Cookie": "a=b",
        "OpenAI-Organization": "us",
        "X-RateLimit-Remaining-Requests": "1",
        "X-Gateway-Model": "theirs",
        "WWW-Authenticate": "Bearer",
        "Location": "https://elsewhere.example/",
        "Access-Control-Allow-Origin": "https://elsewhere.example",
    }
    server.answers[CHAT] = (200, {"choices": []}, {**hidden, "X-Request-Id": "theirs", "X-T": "t"})
    async with make_gateway({"m": entry(server)}, cors={"origins": []}) as running:
        body = {"model": "m", "messages": [USER]}
        async with running.request("POST", CHAT, json=body) as response:
            assert response.headers["X-Gateway-Model"] == "m"
            assert response.headers["X-Request-Id"] != "theirs"
            assert response.headers["X-T"] == "t"
            assert not (hidden.keys() - {"X-Gateway-Model"}) & set(response.headers)


async def test_a_stream_passes_as_it_comes_and_ends_with_its_client(
    make_gateway: MakeGateway, server: RemoteServer
) -> None:
    more, left = asyncio.Event(), asyncio.Event()

    async def stream(asked: Asked) -> None:
        asked.writer.write(STREAM_HEAD + event("one"))
        await more.wait()
        try:
            while True:  # until nobody listens
                asked.writer.write(event("two"))
                await asked.writer.drain()
                await asyncio.sleep(0.001)
        finally:
            left.set()

    server.answers[CHAT] = stream
    async with make_gateway({"m": entry(server)}) as running, running.openai() as client:
        answer = await client.chat.completions.create(model="m", messages=[USER], stream=True)
        texts = aiter(answer)
        assert (await anext(texts)).choices[0].delta.content == "one"
        more.set()
        assert (await anext(texts)).choices[0].delta.content == "two"
        await answer.close()
        async with asyncio.timeout(20):
            await left.wait()
        await closed(running)


async def test_a_client_that_does_not_read_slows_the_server_elsewhere(
    make_gateway: MakeGateway, server: RemoteServer
) -> None:
    sent, piece = 0, b"x" * 65536
    stalled = asyncio.Event()

    async def flood(asked: Asked) -> None:
        nonlocal sent
        asked.writer.write(STREAM_HEAD)
        for _ in range(2000):  # 128 MB
            asked.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            try:
                async with asyncio.timeout(1):
                    await asked.writer.drain()
            except TimeoutError:
                stalled.set()
                await asked.writer.drain()
            sent += len(piece)
        asked.writer.write(STREAM_END)

    server.answers[CHAT] = flood
    async with make_gateway({"m": entry(server)}) as running:
        body = {"model": "m", "messages": [USER], "stream": True}
        async with running.request("POST", CHAT, json=body) as response:
            async with asyncio.timeout(60):
                await stalled.wait()
            assert sent < 64 * 2**20
            received = sum([len(data) async for data in response.content.iter_any()])
            assert received == 2000 * len(piece) + len(b"data: [DONE]\n\n")


async def test_a_stream_that_breaks_looks_broken(
    make_gateway: MakeGateway, server: RemoteServer
) -> None:
    async def half(asked: Asked) -> None:
        asked.writer.write(STREAM_HEAD + event("one"))
        await asked.writer.drain()
        asked.writer.transport.close()
        raise ConnectionAbortedError

    server.answers[CHAT] = half
    async with make_gateway({"m": entry(server)}) as running:
        body = {"model": "m", "messages": [USER], "stream": True}
        async with running.request("POST", CHAT, json=body) as response:
            data = b""
            while b"went away in the middle of its answer" not in data:
                data += await response.content.readany()
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.content.read()
        assert b"[DONE]" not in data
