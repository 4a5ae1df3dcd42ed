"""For whom a request is, and from whom, with and without a proxy in front."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.harness import MakeGateway, Running, fake_model
from tests.http.strangers import RECORDER
from tests.wire import CHAT, connected, head, post

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
async def test_host_is_answered_or_refused(
    make_gateway: MakeGateway, settings: dict[str, Any], host: str | None, status: int
) -> None:
    async with make_gateway({}, **settings) as running, connected(running) as client:
        client.send(head(running, "GET /models HTTP/1.1", host=host))
        assert (await client.answer())[0] == status


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
async def test_address_behind_a_trusted_proxy_is_the_clients(
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
async def test_https_of_a_proxy_in_front_is_told_to_browsers(
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


async def test_every_answer_carries_its_headers(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
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
            with subtests.test(f"{request!r:.80}"):
                async with connected(running) as client:
                    client.send(request)
                    _, headers, _ = await client.answer()
                assert headers["server"] == "llm-gateway"
                assert headers["x-content-type-options"] == "nosniff"
                assert headers["referrer-policy"] == "no-referrer"
                assert headers["x-frame-options"] == "DENY"
                assert headers["cache-control"] == "no-store"
