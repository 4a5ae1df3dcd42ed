"""The fast JSON protocol: heads that are known again, and what is handed over to aiohttp."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.harness import MakeGateway, fake_model
from tests.http.fast_json import FIRST, STREAM, listener_of
from tests.wire import CHAT, Client, connected, head, post, with_tls


async def test_body_over_the_limit_is_refused_by_aiohttp(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models, limits = {"good": fake_model(tmp_path)}, {"max_body": 1024}
    async with make_gateway(models, limits=limits) as running:
        body = CHAT + b" " * (1024 - len(CHAT))
        for request, status, here in (
            (post(running, body), 200, 1),
            (post(running, body + b" "), 413, 0),
        ):
            async with connected(running) as client:
                client.send(request)
                assert (await client.answer())[0] == status
                assert len(listener_of(running).open) == here


async def test_connection_handed_over_stays_with_aiohttp(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """Also behind a request that was answered here."""
    async with make_gateway({"good": fake_model(tmp_path)}) as running:
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(CHAT), CHAT)
        for before in (b"", post(running, CHAT)):

            async def sent(client: Client, data: bytes, before: bytes = before) -> None:
                client.send(before + data)
                if before:
                    assert (await client.answer())[0] == 200

            async with connected(running) as client:  # chunked
                await sent(client, head(running, FIRST, "Transfer-Encoding: chunked") + chunks)
                assert (await client.answer())[0] == 200
            async with connected(running) as client:  # the body waits for a word
                request = post(running, CHAT, "Expect: 100-continue")
                await sent(client, request[: -len(CHAT)])
                async with asyncio.timeout(10):
                    assert await client.reader.readuntil(b"\r\n\r\n") == (
                        b"HTTP/1.1 100 Continue\r\n\r\n"
                    )
                client.send(CHAT)
                assert (await client.answer())[0] == 200
            async with connected(running) as client:  # HTTP/1.0, whole and streamed
                await sent(client, post(running, CHAT).replace(b"HTTP/1.1", b"HTTP/1.0"))
                status, headers, _ = await client.answer()
                assert status == 200
                assert "transfer-encoding" not in headers
                assert await client.closed() == b""
            async with connected(running) as client:
                await sent(client, post(running, STREAM).replace(b"HTTP/1.1", b"HTTP/1.0"))
                got = await client.closed()
                assert b"chunked" not in got.lower()
                assert got.endswith(b"data: [DONE]\n\n")
            async with connected(running) as client:  # HEAD
                await sent(client, head(running, "HEAD /ping HTTP/1.1"))
                async with asyncio.timeout(10):
                    got = await client.reader.readuntil(b"\r\n\r\n")
                assert got.startswith(b"HTTP/1.1 200 ")
                client.send(post(running, CHAT))
                assert (await client.answer())[0] == 200


# --- what is kept of a head ----------------------------------------------------------------


async def test_known_head_is_judged_anew_for_each_request(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    tls, trusting = with_tls(tmp_path)
    async with (
        make_gateway({"good": fake_model(tmp_path)}, tls=tls, allowed_hosts=["*"]) as running,
        connected(running, ssl=trusting) as client,
    ):
        ring = running.gateway.ring
        assert ring is not None
        record, key = await ring.create("short", "")
        request = post(running, CHAT).replace(running.key.encode(), key.encode())

        async def hsts(status: int) -> str | None:
            client.send(request)
            answered, headers, _ = await client.answer()
            assert answered == status
            return headers.get("strict-transport-security")

        assert await hsts(200) is None
        running.gateway.listeners.tls.serves(["box.example.com"], local=False)
        assert await hsts(200) is not None
        await ring.revoke(record.id)
        assert await hsts(401) is not None
        assert len(listener_of(running).heads) == 1


async def test_heads_are_not_kept_without_end(make_gateway: MakeGateway) -> None:
    async with make_gateway({}) as running, connected(running) as client:
        for number in range(600):
            client.send(post(running, b"{", f"X: {number}"))
            assert (await client.answer())[0] == 400
        assert len(listener_of(running).heads) <= 256
