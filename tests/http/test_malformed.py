"""What is no HTTP, or no JSON, is refused clearly, and the gateway goes on."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import openai
import pytest

from tests.harness import MakeGateway, fake_model
from tests.http.strangers import RECORDER
from tests.wire import CHAT, connected, head, post, still_serves


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
async def test_target_is_served_or_refused(
    make_gateway: MakeGateway, tmp_path: Path, line: str, status: int
) -> None:
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
async def test_what_is_no_http_is_refused(
    make_gateway: MakeGateway, tmp_path: Path, start: bytes
) -> None:
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
async def test_damaged_request_harms_nobody_else(
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
async def test_bad_json_is_refused(make_gateway: MakeGateway, tmp_path: Path, body: bytes) -> None:
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


async def test_key_given_twice_is_refused(make_gateway: MakeGateway, tmp_path: Path) -> None:
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


async def test_body_that_needs_no_change_goes_on_as_it_came(
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


@pytest.mark.parametrize(
    ("path", "logged"),
    [
        ("/x%0A2026-01-01%20INFO", "/x%0A2026-01-01%20INFO"),
        ("/x%20200%20name=admin", "/x%20200%20name%3Dadmin"),
        ("/x%1B%5B2J%E2%80%AE", "/x%1B%5B2J%E2%80%AE"),
        ("/%C3%A4", "/\N{LATIN SMALL LETTER A WITH DIAERESIS}"),
    ],
)
async def test_path_forges_no_line_of_the_log(
    make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture, path: str, logged: str
) -> None:
    caplog.set_level("INFO", "gateway.access")
    async with make_gateway({}) as running, connected(running) as client:
        client.send(head(running, f"GET {path} HTTP/1.1"))
        assert (await client.answer())[0] == 404
    (line,) = [r.getMessage() for r in caplog.records if r.name == "gateway.access"]
    assert line.split(" ")[1:4] == ["GET", logged, "404"]
    assert line.isprintable()
