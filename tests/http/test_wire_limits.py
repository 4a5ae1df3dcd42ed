"""What strangers send, byte by byte: refused clearly, and the gateway goes on."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web

from gateway.http import aiohttp_connection as wire
from tests.harness import MakeGateway, Running, fake_model
from tests.wire import CHAT, connected, head, post, still_serves

RECORDER = Path(__file__).parent.parent / "recording_llama_server.py"


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
async def test_shapes_of_request_smuggling(
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
async def test_bad_chunks(
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


def test_what_is_read_of_aiohttps_own() -> None:
    slots = {name for kind in web.RequestHandler.__mro__ for name in getattr(kind, "__slots__", ())}
    assert wire.PARSED in slots, (
        f"this aiohttp has no RequestHandler.{wire.PARSED}: say in "
        "gateway/http/aiohttp_connection.py what took its place, or bad chunks are told by the "
        "clock only (limits.body_timeout)"
    )


async def test_bad_chunks_without_aiohttps_own(
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


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET //models HTTP/1.1", 404),
        ("GET /models/ HTTP/1.1", 404),
        ("GET /./models HTTP/1.1", 404),
        ("GET /%2fmodels HTTP/1.1", 404),
        ("GET /v1/../admin/keys HTTP/1.1", 404),
        ("GET /v1/%2e%2e/admin/keys HTTP/1.1", 404),
        ("GET /models%00 HTTP/1.1", 404),
        ("GET /models%2f..%2fadmin%2fkeys HTTP/1.1", 404),
        ("GET /.well-known/acme-challenge/..%2f..%2fconf%2fgateway.yaml HTTP/1.1", 404),
        ("GET /.well-known/acme-challenge/%00 HTTP/1.1", 404),
        ("GET /.well-known/acme-challenge/../../conf/gateway.yaml HTTP/1.1", 404),
        ("GET /upstream/good/..%2ftools HTTP/1.1", 403),
        ("GET /upstream/good//tools HTTP/1.1", 403),
        ("GET /upstream/good/./tools HTTP/1.1", 403),
        ("GET /upstream/good/%74ools HTTP/1.1", 403),
        ("GET /v1/models/%ff HTTP/1.1", 400),
        ("GET /v1/models/\xff HTTP/1.1", 400),
        ("GET /v1/models/%c0%af HTTP/1.1", 400),
        ("GET /%u0074ools HTTP/1.1", 400),
        ("POST /v1/chat/completion%u0073 HTTP/1.1", 400),
        ("GET /upstream/good/%u0074ools HTTP/1.1", 400),
        ("GET /upstream/good/a%zz HTTP/1.1", 400),
        ("GET /upstream/%u0067ood/x HTTP/1.1", 400),
        ("POST /upstream/good/slots/0?action=%u0073ave HTTP/1.1", 400),
        ("POST /slots/0?model=good&%u0061ction=save HTTP/1.1", 400),
        ("GET /props?model=good&x=%ff HTTP/1.1", 400),
        ("GET /props?model=good&model=other HTTP/1.1", 400),
        ("GET /status?authKey=a&auth%4Bey=b HTTP/1.1", 400),
        ("GET /ui/%u002e%u002e/x HTTP/1.1", 400),
        ("GET /ui/a% HTTP/1.1", 400),
        ("GET /.well-known/acme-challenge/%ff HTTP/1.1", 400),
        ("OPTIONS /%u0041 HTTP/1.1", 400),
        ("GET /v1/models/..%2f..%2fsecret HTTP/1.1", 404),
        ("GET models HTTP/1.1", 400),
        ("GET /models HTTP/2.0", 400),
        ("GET /models", 400),
        ("get /models HTTP/1.1", 400),
        ("GET /" + "a" * 9000 + " HTTP/1.1", 404),
        ("GET /" + "a" * 40_000 + " HTTP/1.1", 414),
        ("CONNECT evil.example:443 HTTP/1.1", 404),
        ("TRACE /models HTTP/1.1", 405),
    ],
)
async def test_targets(make_gateway: MakeGateway, tmp_path: Path, line: str, status: int) -> None:
    async with make_gateway({"good": fake_model(tmp_path)}) as running:
        async with connected(running) as client:
            client.send(head(running, line))
            got = await client.answer()
            assert got[0] == status
            assert json.loads(got[2])["error"]["message"]
        await still_serves(running)


@pytest.mark.parametrize(
    "start", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x00" * 64, b"SSH-2.0-x\r\n"]
)
async def test_what_is_no_http(make_gateway: MakeGateway, tmp_path: Path, start: bytes) -> None:
    async with make_gateway({"good": fake_model(tmp_path)}) as running:
        async with connected(running) as client:
            client.send(start)
            assert await client.error() == (400, "malformed_request")
            await client.closed()
        await still_serves(running)


async def test_https_where_tls_is_off_is_told_in_the_log(
    make_gateway: MakeGateway, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The client learns nothing but that this is no TLS, whatever comes back."""
    caplog.set_level("INFO", "gateway.access")
    async with make_gateway({"good": fake_model(tmp_path)}) as running:
        address = running.url.removeprefix("http://")
        client = openai.AsyncOpenAI(base_url=f"https://{address}/v1", api_key="x", max_retries=0)
        async with client:
            with pytest.raises(openai.APIConnectionError):
                await client.models.list()
    assert any(" - https-without-tls.enabled 400 " in line for line in caplog.messages)


def damaged(whole: bytes, chance: random.Random) -> bytes:
    """A request with a few bytes changed, lost, doubled, or moved."""
    data = bytearray(whole)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data))
        match chance.randrange(5):
            case 0:
                data[place] = chance.randrange(256)
            case 1:
                del data[place : place + chance.randint(1, 8)]
            case 2:
                data[place:place] = chance.choice([b"\r\n", b"\0", b"\r", b"\n", b" ", b":", b"%"])
            case 3:
                data[place:place] = data[place : place + chance.randint(1, 40)]
            case 4:
                lines = bytes(data).split(b"\r\n")
                lines.insert(chance.randrange(len(lines)), chance.choice(lines))
                data = bytearray(b"\r\n".join(lines))
        data = data or bytearray(b"\r\n")
    return bytes(data)


@pytest.mark.parametrize("seed", range(3))
async def test_damaged_requests(
    make_gateway: MakeGateway, tmp_path: Path, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    chance = random.Random(seed)
    async with make_gateway({"good": fake_model(tmp_path)}) as running:
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(CHAT), CHAT)
        whole = (
            post(running, CHAT),
            head(running, "POST /v1/chat/completions HTTP/1.1", "Transfer-Encoding: chunked")
            + chunks,
            head(running, "GET /v1/models?x=%2F&authKey=y HTTP/1.1", "Accept: */*"),
        )
        for _ in range(100):
            sent = damaged(chance.choice(whole), chance)
            async with connected(running) as client:
                client.send(sent)
                client.writer.write_eof()
                got = await client.closed()
            # One connection may carry two requests, once a line break has come in.
            for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", got):
                assert status < b"500", (sent, got)
        await still_serves(running)
    assert not [record.getMessage() for record in caplog.records if record.exc_info]


# --- JSON ----------------------------------------------------------------------------------


def chat(text: bytes) -> bytes:
    return b'{"model": "good", "messages": [{"role": "user", "content": "hi"}], "x": %b}' % text


@pytest.mark.parametrize(
    "body",
    [
        chat(b"[" * 100_000 + b"]" * 100_000),
        chat(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        chat(b"[" * 100_000),
        chat(b"1" * 5000),
        chat(b"1e400"),
        chat(b"[12345678901234567890, 1e400]"),
        chat(b"-Infinity"),
        chat(b'"\xff\xfe"'),
        chat(b'"\xc0\x80"'),
        chat(b'"\xed\xa0\x80"'),
        chat(b'"\\ud800"'),
        chat(b'"\x00"'),
        b"\x00" * 100,
        b"\xff\xfe{\x00}\x00",
        b'{"model": "good\\u0000", "messages": [{"role": "user", "content": "hi"}]}',
        b'{"model": "../good", "messages": [{"role": "user", "content": "hi"}]}',
    ],
    ids=lambda body: repr(body[:24] + b"..." + body[-80:]),
)
async def test_json_that_is_refused(make_gateway: MakeGateway, tmp_path: Path, body: bytes) -> None:
    async with make_gateway({"good": fake_model(tmp_path)}) as running:
        async with connected(running) as client:
            client.send(post(running, body))
            assert (await client.error())[0] in (400, 404)
        await still_serves(running)


@pytest.mark.parametrize("depth", [100, 500, 900, 950, 980, 1025, 1100])
@pytest.mark.parametrize("inside", [b"1", b"12345678901234567890123"])
async def test_depth_is_never_our_own_error(
    make_gateway: MakeGateway, tmp_path: Path, depth: int, inside: bytes
) -> None:
    async with (
        make_gateway({"good": fake_model(tmp_path)}) as running,
        connected(running) as client,
    ):
        client.send(post(running, chat(b"[" * depth + inside + b"]" * depth)))
        assert (await client.answer())[0] in (200, 400)


async def test_a_key_given_twice_is_refused(make_gateway: MakeGateway, tmp_path: Path) -> None:
    """llama-server might read the one that nobody has looked at."""
    async with (
        make_gateway({"good": fake_model(tmp_path)}) as running,
        connected(running) as client,
    ):
        for body in (
            b'{"model": "none", "messages": [], "model": "good"}',
            b'{"model": "good", "messages": [{"role": "user", "content": "c", "content": "d"}]}',
        ):
            client.send(post(running, body))
            status, _, answer = await client.answer()
            assert status == 400
            assert "is given twice" in json.loads(answer)["error"]["message"]


async def test_a_body_that_needs_no_change_goes_on_as_it_came(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    record = tmp_path / "record"
    models = {"good": fake_model(tmp_path, record=record)}
    body = (
        b'{ "model":"good",\n "messages": [{"content":"\\u00e4: x", "role": "user"}],'
        b' "seed": 1.50, "top_p": 1e-1, "x": 123456789012345678901234567890 }\n'
    )
    async with (
        make_gateway(models, llama_server=str(RECORDER)) as running,
        connected(running) as client,
    ):
        client.send(post(running, body))
        assert (await client.answer())[0] == 200
    assert json.loads(record.read_text().splitlines()[-1])["body"].encode() == body


# --- for whom, and from whom ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "host", "status"),
    [
        # As installed: on 127.0.0.1, for nobody's name but our own.
        ({}, "127.0.0.1:8080", 200),
        ({}, "localhost", 200),
        ({}, "LOCALHOST.:8080", 200),
        ({}, "[::1]:8080", 200),
        ({}, "192.168.1.7", 200),
        ({}, "box", 200),
        ({}, "box.local", 200),
        ({}, "evil.example.com", 421),
        ({}, "127.0.0.1.evil.com", 421),
        ({}, "localhost.evil.com", 421),
        ({}, "a_b.evil.com", 421),
        ({}, "-a.evil.com", 421),
        ({}, "a..evil.com", 421),
        ({}, "2130706433", 421),
        ({}, "evil.com:8080", 421),
        ({}, "evil.com/127.0.0.1", 421),
        ({}, "evil.com@127.0.0.1", 421),
        ({}, "", 421),
        ({}, None, 400),
        # Behind a proxy of one's own, whatever it says.
        ({"trusted_proxies": ["127.0.0.1"]}, "box.example.com", 200),
        # Told.
        ({"allowed_hosts": ["box.example.com"]}, "box.example.com:443", 200),
        ({"allowed_hosts": ["box.example.com"]}, "localhost", 200),
        ({"allowed_hosts": ["*.example.com"]}, "a.example.com", 200),
        ({"allowed_hosts": ["*.example.com"]}, "a.example.com.evil.com", 421),
        ({"allowed_hosts": ["*.example.com"]}, "evilexample.com", 421),
        ({"allowed_hosts": ["*"]}, "evil.com", 200),
        (
            {"allowed_hosts": ["a.example.com"], "trusted_proxies": ["10.0.0.1"]},
            "b.example.com",
            421,
        ),
    ],
)
async def test_hosts(
    make_gateway: MakeGateway, settings: dict[str, Any], host: str | None, status: int
) -> None:
    async with make_gateway({}, **settings) as running, connected(running) as client:
        client.send(head(running, "GET /models HTTP/1.1", host=host))
        assert (await client.answer())[0] == status


@pytest.mark.parametrize(
    ("path", "logged"),
    [
        ("/x%0A2026-01-01%20INFO", "/x%0A2026-01-01%20INFO"),
        ("/x%20200%20key=admin", "/x%20200%20key%3Dadmin"),
        ("/x%1B%5B2J%E2%80%AE", "/x%1B%5B2J%E2%80%AE"),
        ("/%C3%A4", "/\N{LATIN SMALL LETTER A WITH DIAERESIS}"),
    ],
)
async def test_a_path_does_not_forge_lines_of_the_log(
    make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture, path: str, logged: str
) -> None:
    caplog.set_level("INFO", "gateway.access")
    async with make_gateway({}) as running, connected(running) as client:
        client.send(head(running, f"GET {path} HTTP/1.1"))
        assert (await client.answer())[0] == 404
    (line,) = [r.getMessage() for r in caplog.records if r.name == "gateway.access"]
    assert line.split(" ")[1:4] == ["GET", logged, "404"]
    assert line.isprintable()


@pytest.mark.parametrize(
    ("trusted", "forwarded", "address"),
    [
        ([], ["203.0.113.9"], "127.0.0.1"),
        (["10.0.0.1"], ["203.0.113.9"], "127.0.0.1"),
        (["127.0.0.1"], [], "127.0.0.1"),
        (["127.0.0.0/8"], ["203.0.113.9"], "203.0.113.9"),
        (["127.0.0.1"], ["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
        (["127.0.0.1"], ["6.6.6.6", "203.0.113.9"], "203.0.113.9"),
        (["127.0.0.1", "10.0.0.0/8"], ["6.6.6.6, 203.0.113.9, 10.1.1.1"], "203.0.113.9"),
        (["127.0.0.1"], ["203.0.113.9:4711"], "203.0.113.9"),
        (["127.0.0.1"], ['"[2001:db8::1]:4711"'], "127.0.0.1"),
        (["127.0.0.1"], ["[2001:db8::1]:4711"], "2001:db8::1"),
        (["127.0.0.1"], ["::ffff:203.0.113.9"], "203.0.113.9"),
        (["127.0.0.1"], ["203.0.113.9, unknown"], "127.0.0.1"),
        (["127.0.0.1"], ["", ","], "127.0.0.1"),
        (["127.0.0.1"], ["1," * 3000], "127.0.0.1"),
    ],
)
async def test_the_address_behind_a_proxy(
    make_gateway: MakeGateway,
    caplog: pytest.LogCaptureFixture,
    trusted: list[str],
    forwarded: list[str],
    address: str,
) -> None:
    caplog.set_level("INFO", "gateway.access")
    async with (
        make_gateway({}, trusted_proxies=trusted) as running,
        connected(running) as client,
    ):
        lines = [f"X-Forwarded-For: {text}" for text in forwarded]
        client.send(head(running, "GET /models HTTP/1.1", *lines))
        assert (await client.answer())[0] == 200
    (line,) = [text for text in caplog.messages if " GET /models " in text]
    assert line.endswith(f" from={address}")


@pytest.mark.parametrize(
    ("trusted", "forwarded", "host", "promised"),
    [
        (["127.0.0.1"], ["https"], "box.example.com", True),
        (["127.0.0.1"], ["HTTPS"], "box.example.com:443", True),
        (["127.0.0.1"], ["http, https"], "box.example.com", True),
        (["127.0.0.1"], ["http", "https"], "box.example.com", True),
        (["127.0.0.1"], ["https, http"], "box.example.com", False),
        (["127.0.0.1"], ["http"], "box.example.com", False),
        (["127.0.0.1"], [], "box.example.com", False),
        (["127.0.0.1"], ["https"], "box.lan", False),
        (["127.0.0.1"], ["https"], "127.0.0.1", False),
        (["10.0.0.1"], ["https"], "box.example.com", False),
        ([], ["https"], "box.example.com", False),
    ],
)
async def test_https_of_a_proxy_in_front(
    make_gateway: MakeGateway, trusted: list[str], forwarded: list[str], host: str, promised: bool
) -> None:
    settings = {"trusted_proxies": trusted, "allowed_hosts": ["*"]}
    async with make_gateway({}, **settings) as running, connected(running) as client:
        lines = [f"X-Forwarded-Proto: {text}" for text in forwarded]
        client.send(head(running, "GET /models HTTP/1.1", *lines, host=host))
        status, headers, _ = await client.answer()
        assert status == 200
        assert ("strict-transport-security" in headers) == promised


async def test_nothing_of_forwarding_reaches_llama_server(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    record = tmp_path / "record"
    models = {"good": fake_model(tmp_path, record=record)}
    settings = {"llama_server": str(RECORDER), "trusted_proxies": ["127.0.0.1"]}
    async with make_gateway(models, **settings) as running, connected(running) as client:
        lines = [
            "X-Forwarded-For: 203.0.113.9",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: evil.example",
            "Forwarded: for=203.0.113.9",
            "X-Real-IP: 203.0.113.9",
            "X-Conversation-Id: 1",
            "Cookie: a=b",
        ]
        client.send(post(running, CHAT, *lines))
        assert (await client.answer())[0] == 200
    sent = json.loads(record.read_text().splitlines()[-1])["headers"]
    known = {"host", "content-type", "content-length", "accept", "connection"}
    assert {name.lower() for name in sent} <= known


async def test_wrong_keys_are_counted_by_that_address(make_gateway: MakeGateway) -> None:
    async def guess(running: Running, address: str) -> int:
        headers = {"X-Forwarded-For": f"{address}, 203.0.113.9"}
        return int((await running.json("GET", "/models", key="wrong", headers=headers))[0])

    async with make_gateway({}, trusted_proxies=["127.0.0.1"]) as running:
        statuses = [await guess(running, f"198.51.100.{n}") for n in range(25)]
        assert statuses[-1] == 429, "what a client writes there itself makes nobody else of it"
        assert (
            await running.json(
                "GET", "/models", key="wrong", headers={"X-Forwarded-For": "203.0.113.10"}
            )
        )[0] == 401


# --- what every answer carries -------------------------------------------------------------


async def test_headers_of_every_answer(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway({"good": fake_model(tmp_path)}) as running:
        for request in (
            head(running, "GET /models HTTP/1.1"),
            head(running, "GET /nope HTTP/1.1"),
            head(running, "GET /ping HTTP/1.1", "Expect: something"),
            head(running, "GET /models HTTP/9.9"),
            head(running, "GET /models HTTP/1.1", host="evil.com"),
            post(running, CHAT),
            post(running, b"{"),
        ):
            async with connected(running) as client:
                client.send(request)
                _, headers, _ = await client.answer()
            assert headers["server"] == "llm-gateway"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["x-frame-options"] == "DENY"
            assert headers["cache-control"] == "no-store"
