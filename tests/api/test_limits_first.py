"""The limits of a key are asked before anything is done for a request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.scope import OF_ANY_KEY, OF_NOBODY
from tests.harness import MakeGateway, Running, fake_model
from tests.route_table import API
from tests.wire import Client, connected

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
#: What any key may look at without limit, as the gateway has it at hand.
FREE = {
    ("POST", "/api/show"),
    ("GET", "/api/ps"),
    ("GET", "/api/tags"),
    ("GET", "/api/version"),
    ("GET", "/clients"),
    ("GET", "/key"),
    ("GET", "/key/usage"),
    ("GET", "/models"),
    ("GET", "/models/sse"),
    ("GET", "/models/{model:.+}"),
    ("GET", "/schemas/{name}"),
    ("GET", "/status"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model:.+}"),
    ("GET", "/v1/streams/{id}"),
    ("DELETE", "/v1/streams/{id}"),
    ("GET", "/v1/responses/{response_id}"),
    ("DELETE", "/v1/responses/{response_id}"),
    ("POST", "/v1/responses/{response_id}/cancel"),
    ("GET", "/v1/responses/{response_id}/input_items"),
    ("GET", "/v1/conversations/{conversation_id}"),
    ("DELETE", "/v1/conversations/{conversation_id}"),
    ("GET", "/v1/conversations/{conversation_id}/items"),
    ("GET", "/v1/conversations/{conversation_id}/items/{item_id}"),
    ("DELETE", "/v1/conversations/{conversation_id}/items/{item_id}"),
}


async def limited(running: Running, **limits: int) -> str:
    assert running.gateway.ring is not None
    _, key = await running.gateway.ring.create("limited", limits=limits)
    return key


async def status_of(client: Client, key: str, method: str, path: str, *lines: str) -> int:
    """That of the answer to a request of which only the head is sent."""
    head = (f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {key}", *lines)
    client.send("\r\n".join((*head, "", "")).encode())
    status, _, _ = await client.answer()
    return status


async def test_every_route_asks_the_limits_before_it_reads_a_body(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        key = await limited(running, rpm=1)
        assert (await running.json("POST", "/tokenize", json={"content": "hi"}, key=key))[0] == 200
        asked = 0
        for row in API:
            method, canonical = row.method, row.path
            if row.scope not in OF_ANY_KEY - OF_NOBODY:
                continue
            if (method, canonical) in FREE:
                assert not row.is_counted, canonical
                continue
            path = canonical.partition("{")[0] + ("x" if "{" in canonical else "")
            asked += 1
            if method == "*":
                method = "POST"
            lines = ("Content-Length: 1000000",) if method != "GET" else ()
            async with connected(running) as client:
                assert await status_of(client, key, method, path, *lines) == 429, (method, path)
        assert asked > 40  # the table of llama-server's, and ours
        # What loads a model is one of them.
        async with connected(running) as client:
            path = "/props?model=m&autoload=true"
            assert await status_of(client, key, "GET", path) == 429
        assert len(running.gateway.accounting.recent) == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/chat/completions", b"[],", 400),
        ("POST", "/v1/chat/completions", b'{"model": "other", "messages": [{}]}', 404),
        ("POST", "/v1/chat/completions", b'{"messages": [{}]} ' + b" " * 70_000 + b"x", 400),
        ("POST", "/loadModel", b'{"model": "other"}', 404),
        ("POST", "/v1/audio/transcriptions", b"x", 415),
        ("GET", "/props?model=m", b"", 400),
        ("GET", "/lora-adapters?model=m", b"", 400),
        ("GET", "/chat/ask", b"", 400),
        ("GET", "/nowhere", b"", 404),
        ("POST", "/v1/streams/lookup", b"", 403),
    ],
)
async def test_what_is_wrong_counts_as_well(
    make_gateway: MakeGateway, tmp_path: Path, method: str, path: str, body: bytes, status: int
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        key = await limited(running, rpm=2)
        options: dict[str, Any] = {"data": body, "key": key}
        for remaining in ("1", "0"):
            async with running.request(method, path, **options) as response:
                assert response.status == status
                assert response.headers["x-ratelimit-remaining-requests"] == remaining
        for _ in range(3):  # and what the limit refuses doesn't
            async with running.request(method, path, **options) as response:
                assert response.status == 429
                assert 0 < int(response.headers["Retry-After"]) <= 30
        # Without limits it is as ever.
        async with running.request(method, path, data=body) as response:
            assert response.status == status


async def test_a_body_too_large_counts(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        key = await limited(running, rpm=1)
        size = f"Content-Length: {2**40}"
        for status in (413, 429):
            async with connected(running) as client:
                assert await status_of(client, key, "POST", "/tokenize", size) == status


async def test_a_load_that_fails_costs_nothing(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway({"m": fake_model(tmp_path, exit=1)}) as running:
        key = await limited(running, rpm=1)
        for path, body in (("/loadModel", {"model": "m"}), ("/v1/chat/completions", CHAT)):
            async with running.request("POST", path, data=json.dumps(body), key=key) as response:
                assert response.status == 500
                assert response.headers["x-ratelimit-remaining-requests"] == "1"


async def test_what_is_running_counts_before_its_body_came(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        key = await limited(running, concurrency=1)
        async with connected(running) as client, connected(running) as other:
            head = f"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
            client.send(f"{head}Content-Length: 100000\r\nExpect: 100-continue\r\n\r\n".encode())
            await client.reader.readuntil(b"100 Continue\r\n\r\n")
            assert await status_of(other, key, "POST", "/tokenize", "Content-Length: 99999") == 429
            client.send(json.dumps({"content": "x" * 99_985}).encode())
            assert (await client.answer())[0] == 200
            body = json.dumps({"content": "hi"})
        assert (await running.json("POST", "/tokenize", data=body, key=key))[0] == 200
