"""Requests that two readers could read differently are refused, and the gateway goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from aiohttp import web

from gateway.http import aiohttp_connection as wire
from tests.harness import MakeGateway, fake_model
from tests.wire import connected, head, still_serves

# --- what is no proper HTTP ----------------------------------------------------------------

SMUGGLED = b"GET /admin/keys HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(["Content-Length: 4", "Transfer-Encoding: chunked"], id="CL+TE"),
        pytest.param(["Transfer-Encoding: chunked", "Content-Length: 4"], id="TE+CL"),
        pytest.param(["Content-Length: 4", "Content-Length: 5"], id="two lengths"),
        pytest.param(["Content-Length: 4", "Content-Length: 4"], id="the same length twice"),
        pytest.param(["Content-Length: 4, 4"], id="a list of lengths"),
        pytest.param(["Content-Length: +4"], id="a sign"),
        pytest.param(["Content-Length: -1"], id="negative"),
        pytest.param(["Content-Length: 0x4"], id="hexadecimal"),
        pytest.param(["Content-Length: 4_0"], id="underscore"),
        pytest.param(["Content-Length:"], id="no length"),
        pytest.param(["Content-Length: 99999999999999999999999999"], id="endless length"),
        pytest.param(["Content-Length : 4"], id="space before the colon"),
        pytest.param(["Transfer-Encoding : chunked"], id="TE, space before the colon"),
        pytest.param(["Transfer-Encoding: xchunked"], id="unknown coding"),
        pytest.param(["Transfer-Encoding: chunked, identity"], id="chunked is not last"),
        pytest.param(["Transfer-Encoding: identity", "Content-Length: 4"], id="identity"),
        pytest.param(["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], id="two TEs"),
        pytest.param(["X: y\r\n folded", "Content-Length: 4"], id="obs-fold"),
        pytest.param(["X: y\rContent-Length: 4"], id="bare CR"),
        pytest.param(["X: y\x00z"], id="null in a value"),
        pytest.param(["X\x00: y"], id="null in a name"),
        pytest.param([": y"], id="no name"),
        pytest.param(["no colon at all"], id="no colon"),
        pytest.param(["X-Long: " + "y" * 40_000], id="long line"),
        pytest.param([f"X-{n}: y" for n in range(200)], id="many headers"),
        pytest.param(["Host: evil.example"], id="two hosts"),
    ],
)
async def test_request_with_two_meanings_is_refused(
    make_gateway: MakeGateway, tmp_path: Path, lines: list[str]
) -> None:
    async with make_gateway({"good": fake_model(tmp_path)}) as running:
        async with connected(running) as client:
            first = "POST /v1/chat/completions HTTP/1.1"
            client.send(head(running, first, *lines) + b"0\r\n\r\n" + SMUGGLED)
            status, _, body = await client.answer()
            assert 400 <= status < 500
            assert json.loads(body)["error"]["code"]
            rest = await client.closed()
            assert b"HTTP/1.1 2" not in rest
            assert rest.count(b"HTTP/1.") <= 1
        await still_serves(running)


@pytest.mark.parametrize(
    "body",
    [
        b"zz\r\n{}\r\n0\r\n\r\n",
        b"-2\r\n{}\r\n0\r\n\r\n",
        b"0x2\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}XX0\r\n\r\n",
        b"2 \r\n{}\r\n0\r\n\r\n",
        b"2\n{}\n0\n\n",
        b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        b"2;a=\x00\r\n{}\r\n0\r\n\r\n",
        b"\r\n",
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
async def test_bad_chunk_is_refused_at_once(
    make_gateway: MakeGateway, tmp_path: Path, body: bytes, at_once: bool
) -> None:
    async with make_gateway({"good": fake_model(tmp_path)}) as running:
        async with connected(running) as client:
            first = "POST /v1/chat/completions HTTP/1.1"
            start = head(running, first, "Transfer-Encoding: chunked")
            if at_once:
                client.send(start + body)
            else:
                client.send(start + b"1\r\n{\r\n")
                async with running.request("GET", "/ping"):
                    pass  # what was sent has been read by now
                client.send(body)
            assert (await client.error())[0] == 400
            await client.closed()
        await still_serves(running)


def test_attribute_read_of_aiohttp_is_there() -> None:
    slots = {name for kind in web.RequestHandler.__mro__ for name in getattr(kind, "__slots__", ())}
    assert wire.PARSED in slots, (
        f"this aiohttp has no RequestHandler.{wire.PARSED}: say in "
        "gateway/http/aiohttp_connection.py what took its place, or bad chunks are told by the "
        "clock only (limits.body_timeout)"
    )


async def test_bad_chunk_is_refused_by_the_clock_without_that_attribute(
    make_gateway: MakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "PARSED", "_nothing_of_aiohttps")
    models, limits = {"good": fake_model(tmp_path)}, {"body_timeout": "300ms"}
    async with make_gateway(models, limits=limits) as running:
        async with connected(running) as client:
            first = "POST /v1/chat/completions HTTP/1.1"
            client.send(head(running, first, "Transfer-Encoding: chunked") + b"1\r\n{\r\n")
            async with running.request("GET", "/ping"):
                pass  # what was sent has been read by now
            client.send(b"zz\r\n")
            assert await client.error() == (408, "request_timeout")
            await client.closed()
        await still_serves(running)
