"""Whatever is refused, and wherever: one shape per API, HTTP/1.1, and an id that the log has."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.harness import MakeGateway, fake_model
from tests.http.refused import CHATS, MESSAGES
from tests.wire import CHAT, Client, connected, head, post

QUESTION = json.loads(CHAT)["messages"]


KIB = 1024


async def refused(client: Client, path: str) -> tuple[int, str]:
    """Status and message of the answer to a request for ``path``, in the right shape."""
    status, headers, body = await client.answer()
    assert headers["server"] == "llm-gateway"
    assert headers["x-request-id"].startswith("req_")
    said = json.loads(body)
    if path.rpartition("?")[0].endswith("/messages") or "/messages" in path:
        assert said["type"] == "error"
        assert set(said["error"]) == {"type", "message"}
    else:
        assert set(said["error"]) == {"message", "type", "code", "param"}
    return status, said["error"]["message"]


def long_header(size: int) -> str:
    """A header that is ``size`` bytes long, name and value."""
    return "Cookie: " + "a" * (size - len("Cookie"))


# --- how long a head may be ----------------------------------------------------------------


async def test_long_heads_are_served(
    make_gateway: MakeGateway,
    tmp_path: Path,
    secured: tuple[dict[str, Any], dict[str, Any]],
    subtests: pytest.Subtests,
) -> None:
    settings, options = secured
    async with (
        make_gateway({"good": fake_model(tmp_path)}, **settings) as running,
        connected(running, **options) as client,
    ):
        for size in (7 * KIB, 8191, 20 * KIB, 32 * KIB):
            with subtests.test(f"{size!r:.80}"):
                client.send(post(running, CHAT, long_header(size)))
                assert (await client.answer())[0] == 200
                client.send(head(running, "GET /v1/models HTTP/1.1", long_header(size)))
                assert (await client.answer())[0] == 200
                target = "/v1/models?x=".ljust(size, "y")
                client.send(head(running, f"GET {target} HTTP/1.1"))
                assert (await client.answer())[0] == 200
                target = f"{CHATS}?x=".ljust(size, "y")
                client.send(post(running, CHAT).replace(CHATS.encode(), target.encode()))
                assert (await client.answer())[0] == 200


@pytest.mark.parametrize("path", [CHATS, MESSAGES])
@pytest.mark.parametrize("in_pieces", [False, True])
async def test_longer_heads_are_refused(
    make_gateway: MakeGateway,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    secured: tuple[dict[str, Any], dict[str, Any]],
    path: str,
    in_pieces: bool,
) -> None:
    caplog.set_level("INFO", "gateway.access")
    settings, options = secured
    first = f"POST {path} HTTP/1.1"
    half = long_header(30 * KIB)
    cases: tuple[tuple[str, list[str], int, str], ...] = (
        (first, [long_header(32 * KIB + 1)], 431, "limits.max_header"),
        (first, [long_header(100 * KIB)], 431, "limits.max_header"),
        (first, [half, half.replace("Cookie", "Cookei"), "X: y" * 1500], 431, "limits.max_head)"),
        (first, [f"X-{number}: y" for number in range(200)], 431, "limits.max_header_count"),
        (f"POST {path + '?x=':y<32769} HTTP/1.1", [], 414, "limits.max_url"),
        (f"POST {path + '?x=':y<99999} HTTP/1.1", [], 414, "limits.max_url"),
    )
    async with make_gateway({"good": fake_model(tmp_path)}, **settings) as running:
        for line, lines, status, named in cases:
            whole = head(running, line, "Content-Length: 0", *lines)
            async with connected(running, **options) as client:
                step = 5000 if in_pieces else len(whole)
                for start in range(0, len(whole), step):
                    client.send(whole[start : start + step])
                    with contextlib.suppress(ConnectionError):  # it may be refused by now
                        await client.writer.drain()
                    await asyncio.sleep(0)
                got = await refused(client, path)
                assert got[0] == status, got
                assert named in got[1]
    asked = [line for line in caplog.messages if f" {path} " in line]
    assert len(asked) == len(cases)
    assert "yyyy" not in caplog.text
    assert "aaaa" not in caplog.text


async def test_limits_of_heads_are_settings_of_both_protocols(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    limits = {"max_url": "1KiB", "max_header": "2KiB", "max_head": "8KiB", "max_header_count": 20}
    models = {"good": fake_model(tmp_path)}
    async with make_gateway(models, limits=limits) as running:

        async def status(request: bytes) -> int:
            async with connected(running) as client:
                client.send(request)
                return (await client.answer())[0]

        for first in (f"POST {CHATS} HTTP/1.1", f"POST {CHATS}?x=1 HTTP/1.1"):

            def chat(*lines: str, first: str = first) -> bytes:
                return head(running, first, f"Content-Length: {len(CHAT)}", *lines) + CHAT

            assert await status(chat(long_header(2048))) == 200
            assert await status(chat(long_header(2049))) == 431
            assert await status(chat(*[f"X-{number}: y" for number in range(17)])) == 200
            assert await status(chat(*[f"X-{number}: y" for number in range(18)])) == 431
            many = [long_header(1900).replace("Cookie", f"X-{number}---") for number in range(5)]
            assert await status(chat(*many[:4])) == 200
            assert await status(chat(*many)) == 431
        assert await status(head(running, f"GET {'/v1/models?':y<1024} HTTP/1.1")) == 200
        assert await status(head(running, f"GET {'/v1/models?':y<1025} HTTP/1.1")) == 414


async def test_official_clients_understand_a_refusal(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    big = {"X-Token": "t" * 40_000}
    async with make_gateway({"good": fake_model(tmp_path)}) as running:
        async with running.openai() as ours:
            chats = ours.chat.completions
            with pytest.raises(openai.APIStatusError) as error:
                await chats.create(model="good", messages=QUESTION, extra_headers=big)
        assert error.value.status_code == 431
        assert error.value.code == "headers_too_large"
        assert error.value.request_id is not None
        async with anthropic.AsyncAnthropic(
            base_url=running.url, api_key=running.key, max_retries=0
        ) as theirs:
            with pytest.raises(anthropic.APIStatusError) as said:
                await theirs.messages.create(
                    model="good", max_tokens=1, messages=QUESTION, extra_headers=big
                )
        assert said.value.status_code == 431
        assert isinstance(said.value.body, dict)
        assert said.value.body["error"]["type"] == "invalid_request_error"


# --- every status --------------------------------------------------------------------------


@pytest.mark.parametrize("path", [CHATS, MESSAGES, "/messages", "/v1/messages/count_tokens"])
async def test_every_status_has_the_shape_of_its_api(
    make_gateway: MakeGateway,
    tmp_path: Path,
    secured: tuple[dict[str, Any], dict[str, Any]],
    path: str,
) -> None:
    settings, options = secured
    limits = {"max_body": "2KiB", "header_timeout": "1s", "body_timeout": "1s"}
    post_line = f"POST {path} HTTP/1.1"
    chunked = "Transfer-Encoding: chunked"
    async with make_gateway({}, limits=limits, **settings) as running:
        cases: list[tuple[int, bytes]] = [
            (417, head(running, post_line, "Content-Length: 2", "Expect: x") + b"{}"),
            (405, head(running, f"GET {path} HTTP/1.1")),
            (405, head(running, f"PUT {path} HTTP/1.1", "Content-Length: 2") + b"{}"),
            (404, head(running, f"POST {path}/nothing HTTP/1.1", "Content-Length: 0")),
            (408, head(running, post_line)[:-10]),
            (408, head(running, post_line, "Content-Length: 9") + b"{"),
            (408, head(running, post_line, "Content-Length: 9000", "X: y")[:-10]),
            (413, head(running, post_line, "Content-Length: 3000") + b" " * 3000),
            (413, head(running, post_line, chunked) + b"bb8\r\n" + b" " * 3000 + b"\r\n0\r\n\r\n"),
            (400, head(running, post_line, chunked) + b"zz\r\n"),
            (400, head(running, post_line, "Content-Length: x")),
            (400, head(running, post_line, "Content-Length: 2", "no colon") + b"{}"),
            (400, head(running, f"POST {path} HTTP/2.0")),
            (400, head(running, post_line, "Content-Length: 1") + b"{"),
            (400, head(running, post_line, "Host: two")),
            (421, head(running, post_line, "Content-Length: 2", host="evil.com") + b"{}"),
            (401, head(running, post_line, "Content-Length: 2").replace(b"Bearer l", b"Bearer x")),
        ]

        async def is_refused(status: int, request: bytes) -> None:
            async with connected(running, **options) as client:
                client.send(request)
                got = await refused(client, path)
                assert got[0] == status, (got, request[:200])

        await asyncio.gather(*[is_refused(*case) for case in cases])


async def test_key_in_a_path_is_not_logged(
    make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """Who puts it where the route belongs: behind the base URL, or behind a semicolon."""
    caplog.set_level("INFO", "gateway.access")
    async with make_gateway({}) as running:
        for lines in ((f"GET /{running.key}/models HTTP/1.1",), ("GET / HTTP/1.1", "no colon")):
            first = lines[0].replace("GET / ", f"GET /;authKey={running.key} ")
            async with connected(running) as client:
                client.send(head(running, first, *lines[1:]))
                await client.answer()
        told = [record.getMessage() for record in caplog.records if record.name == "gateway.access"]
        assert [line.split()[2] for line in told] == ["/llmgw_.../models", "/;authKey=..."]
        assert running.key not in caplog.text


@pytest.mark.parametrize("path", [CHATS, MESSAGES])
@pytest.mark.parametrize("version", ["", " HTTP/0.9", " HTTP/2.0"])
async def test_other_versions_are_answered_over_1_1(
    make_gateway: MakeGateway, path: str, version: str
) -> None:
    """A client that reads 1.1, as a proxy does, can't read a line that says 2.0 (RFC 9110, 6.2)."""
    async with make_gateway({}) as running, connected(running) as client:
        client.send(head(running, f"GET {path}{version}"))
        assert (await client.reader.readuntil(b" ")) == b"HTTP/1.1 "
        assert (await client.reader.readexactly(4)) == b"400 "
        said = json.loads((await client.closed()).rpartition(b"\r\n\r\n")[2])
        assert ("type" in said) == (path == MESSAGES)


async def test_browsers_may_read_a_refusal_and_heads_have_no_body(
    make_gateway: MakeGateway,
) -> None:
    cors = {"origins": ["https://app.example.com"]}
    async with make_gateway({}, cors=cors) as running:
        lines = ("Origin: https://app.example.com", long_header(40 * KIB))
        async with connected(running) as client:
            client.send(head(running, f"POST {CHATS} HTTP/1.1", *lines))
            status, headers, _ = await client.answer()
            assert status == 431
            assert headers["access-control-allow-origin"] == "https://app.example.com"
            assert "X-Request-Id" in headers["access-control-expose-headers"]
        async with connected(running) as client:
            client.send(head(running, "HEAD /ping HTTP/1.1", *lines))
            got = await client.closed()
            assert got.startswith(b"HTTP/1.1 431 ")
            assert got.endswith(b"\r\n\r\n")


async def test_what_was_asked_before_is_answered_before(
    make_gateway: MakeGateway, subtests: pytest.Subtests
) -> None:
    """Of requests that come one behind the other, only the bad one is refused."""
    async with make_gateway({}) as running:
        for bad in (
            head(running, f"GET {MESSAGES} HTTP/1.1", long_header(40 * KIB)),
            head(running, f"GET {MESSAGES} HTTP/1.1", *[long_header(30 * KIB)] * 3)[:-2],
            head(running, f"GET {MESSAGES} HTTP/1.1", "no colon"),
        ):
            with subtests.test(f"{bad!r:.80}"):
                async with connected(running) as client:
                    client.send(head(running, "GET /v1/models HTTP/1.1"))
                    client.send(head(running, "GET /nothing HTTP/1.1"))
                    assert (await client.answer())[0] == 200
                    client.send(bad)
                    assert await client.error() == (404, "route_not_found")
                    assert (await refused(client, MESSAGES))[0] in (400, 431)
                    assert await client.closed() == b""


async def test_connection_goes_on_after_an_error(
    make_gateway: MakeGateway, subtests: pytest.Subtests
) -> None:
    async with make_gateway({}) as running, connected(running) as client:
        for request, status in (
            (head(running, "GET /nothing HTTP/1.1"), 404),
            (head(running, f"GET {MESSAGES} HTTP/1.1"), 405),
            (head(running, f"POST {MESSAGES} HTTP/1.1", "Content-Length: 1") + b"{", 400),
            (head(running, "GET /v1/models HTTP/1.1", "Expect: x"), 417),
            (head(running, f"GET {'/v1/models?':y<32769} HTTP/1.1"), 414),
        ):
            with subtests.test(f"{request!r:.80}"):
                client.send(request)
                assert (await client.answer())[0] == status
        assert await client.closed() == b""
