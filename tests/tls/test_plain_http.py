"""Plain HTTP on the port for TLS gets one answer that a person, or a client, can read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path

import anthropic
import openai
import pytest

from tests.harness import MakeGateway, fake_model
from tests.wire import CHAT, connected, counted, post, still_serves, with_tls


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/", "/v1/models"])
async def test_it_says_https(
    make_gateway: MakeGateway,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    path: str,
    subtests: pytest.Subtests,
) -> None:
    caplog.set_level("INFO", "gateway.access")
    tls, trusting = with_tls(tmp_path)
    async with make_gateway({"good": fake_model(tmp_path)}, tls=tls) as running:
        for pieces in (
            (f"GET {path}?authKey=secret HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode(),),
            (b"G", f"ET {path} HTTP/1.1\r\nHo".encode(), b"st: 127.0.0.1\r\n\r\n"),
            (post(running, CHAT * 10_000).replace(b"/v1/chat/completions", path.encode()),),
            (f"get {path} HTTP/1.0\r\n\r\n".encode(),),
        ):
            with subtests.test(f"{pieces!r:.80}"):
                async with connected(running) as client:
                    for piece in pieces:
                        client.send(piece)
                        await asyncio.sleep(0.01)
                    status, headers, body = await client.answer()
                    assert status == 400
                    assert headers["x-request-id"] in caplog.text
                    assert headers["content-type"] == "application/json"
                    said = json.loads(body)
                    assert "https://" in said["error"]["message"]
                    assert ("type" in said) == (path == "/v1/messages")
                    assert await client.closed() == b""
        assert "secret" not in caplog.text
        await counted(running, 0)
        await still_serves(running, ssl=trusting)


async def test_official_clients_show_it(make_gateway: MakeGateway, tmp_path: Path) -> None:
    tls, _ = with_tls(tmp_path)
    async with make_gateway({}, tls=tls) as running:
        plain = running.url.replace("https://", "http://")
        async with openai.AsyncOpenAI(base_url=f"{plain}/v1", api_key="k", max_retries=2) as ours:
            with pytest.raises(openai.BadRequestError, match="https://"):
                await ours.models.list()
        async with anthropic.AsyncAnthropic(base_url=plain, api_key="k", max_retries=2) as theirs:
            with pytest.raises(anthropic.BadRequestError, match="https://"):
                await theirs.messages.count_tokens(
                    model="m", messages=[{"role": "user", "content": "hi"}]
                )


async def test_plain_request_without_end_is_given_up(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    tls, trusting = with_tls(tmp_path)
    limits = {"handshake_timeout": "500ms"}
    models = {"good": fake_model(tmp_path)}
    async with make_gateway(models, tls=tls, limits=limits) as running:
        for start in (
            b"",
            b"G",
            b"GET / HTTP/1.1\r\nHost: x\r\n",
            b"\x16",
            b"\x80\x2e\x01\x00\x02",
        ):
            with subtests.test(f"{start!r:.80}"):
                async with connected(running) as client:
                    client.send(start)
                    assert b"HTTP" not in await client.closed()
        async with connected(running) as client:  # nor in sending
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            assert (await client.answer())[0] == 400
            since = time.monotonic()
            while not client.writer.is_closing() and time.monotonic() - since < 10:
                client.send(b"more")
                await asyncio.sleep(0.02)
                if client.reader.at_eof() and running.gateway.connections.count == 0:
                    break
            await counted(running, 0)
            assert time.monotonic() - since < 5
        await still_serves(running, ssl=trusting)


async def test_one_too_many_is_told_that(make_gateway: MakeGateway, tmp_path: Path) -> None:
    tls, trusting = with_tls(tmp_path)
    async with (
        make_gateway({}, tls=tls, limits={"connections": 1}) as running,
        connected(running, ssl=trusting),
    ):
        await counted(running, 1)
        async with connected(running) as client:
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            assert await client.error() == (503, "too_many_connections")


async def test_the_end_waits_for_none_of_them(make_gateway: MakeGateway, tmp_path: Path) -> None:
    tls, _ = with_tls(tmp_path)
    async with contextlib.AsyncExitStack() as clients:
        async with make_gateway({}, tls=tls) as running:
            silent = await clients.enter_async_context(connected(running))
            half = await clients.enter_async_context(connected(running))
            half.send(b"GET / HTTP/1.1\r\n")
            await counted(running, 2)
        assert await silent.closed() == b""
        assert await half.closed() == b""
