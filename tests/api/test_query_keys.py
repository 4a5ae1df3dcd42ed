"""``?authKey=``: for GET only, to be switched off, and a secret like any key."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from urllib.parse import quote

import pytest

from gateway.access.key_format import new_key
from tests.harness import MakeGateway, Running, fake_model


async def raw(running: Running, request: bytes) -> bytes:
    """What comes back for bytes that need not be HTTP."""
    host, _, port = running.url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_key_in_the_query_works_for_get_only(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        key = running.key
        assert (await running.json("GET", f"/models?authKey={key}", key=None))[0] == 200
        for method, path in (
            ("POST", "/v1/chat/completions"),
            ("POST", "/unloadModel"),
            ("PATCH", "/admin/keys/k_12345678"),
            ("DELETE", "/admin/keys/k_12345678"),
        ):
            with subtests.test(f"{method!r:.80}"):
                status, said = await running.json(
                    method, f"{path}?authKey={key}", key=None, json={}
                )
                assert status == 401
                assert "(?authKey is taken with GET only)" in said["error"]["message"]
                assert key not in said["error"]["message"]
        # A header wins, also a wrong one: no key is tried behind its back.
        assert (await running.json("GET", f"/models?authKey={key}", key="wrong"))[0] == 401
        for empty in ("authKey=", "authKey", "authkey=" + key, "x=authKey"):
            with subtests.test(f"{empty!r:.80}"):
                status, answer = await running.json("GET", f"/models?{empty}", key=None)
                assert status == 401
                assert "no API key was sent" in answer["error"]["message"]


async def test_refusal_says_what_is_wrong_with_the_header(
    make_gateway: MakeGateway, subtests: pytest.Subtests
) -> None:
    async with make_gateway({}) as running:
        for method in ("GET", "POST"):  # by either door
            for value, why in (
                (running.key, "Authorization holds no `Bearer`"),
                (f"Basic {running.key}", "Authorization holds no `Bearer`"),
                ("Bearer null", "or only a word like null"),
                ("Bearer", "or only a word like null"),
            ):
                with subtests.test(f"{value!r:.80}"):
                    status, answer = await running.json(
                        method,
                        "/v1/chat/completions",
                        key=None,
                        headers={"Authorization": value},
                        **({"json": {"model": "m"}} if method == "POST" else {}),
                    )
                    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
                    assert answer["error"]["message"].startswith(f"no API key was sent ({why}")
                    assert running.key not in answer["error"]["message"]


async def test_a_key_in_the_query_can_be_switched_off(make_gateway: MakeGateway) -> None:
    async with make_gateway({}, auth={"allow_query_key": False}) as running:
        status, answer = await running.json("GET", f"/models?authKey={running.key}", key=None)
        assert status == 401
        assert running.key not in json.dumps(answer)
        assert "see auth.allow_query_key" in answer["error"]["message"]
        assert (await running.json("GET", "/models"))[0] == 200


async def test_it_is_told_nowhere(
    make_gateway: MakeGateway,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    subtests: pytest.Subtests,
) -> None:
    caplog.set_level(logging.DEBUG)
    models = {"m": fake_model(tmp_path), "bad": fake_model(tmp_path, garbage=1)}
    async with make_gateway(models) as running:
        for key in (running.key, new_key(), "swordfish-é"):
            with subtests.test(f"{key!r:.80}"):
                query = f"authKey={quote(key)}"
                told = ""
                for path in (
                    f"/models?{query}",
                    f"/nope?{query}",
                    f"/v1/models/none?{query}",
                    f"/chat/ask?question=hi&model=m&{query}",
                    f"/chat/ask?question=hi&model=m&stream=true&{query}",
                    f"/chat/ask?question=hi&model=bad&{query}",
                    f"/chat/ask?question=hi&model=bad&stream=true&{query}",
                    f"/chat/ask?question=hi&model=none&{query}",
                    f"/props?model=none&{query}",
                    f"/unloadModel?model=none&{query}",
                    f"/chat/errors?{query}",
                    f"/admin/usage?days=x&{query}",
                ):
                    async with running.request("GET", path, key=None) as response:
                        told += str(response.headers) + await response.text()
                line = f"/models?{query}".encode()
                for request in (
                    b"GET %b HTTP/9.9\r\n\r\n" % line,
                    b"GET %b\x01 HTTP/1.1\r\nHost: x\r\n\r\n" % line,
                    b"G\xc3\xa9T %b HTTP/1.1\r\nHost: x\r\n\r\n" % line,
                    b"GET %b HTTP/1.1\r\nHost: x\r\nX-Long: %b\r\n\r\n" % (line, b"x" * 33_000),
                    b"GET %b&%b HTTP/1.1\r\nHost: x\r\n\r\n" % (line, b"x" * 70_000),
                    b"GET http://[%b HTTP/1.1\r\nHost: x\r\n\r\n" % line,
                    b"GET %b HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n" % line,
                    b"GET %b HTTP/1.1\r\nHost: x\r\nX-Api-Key:\x00%b\r\n\r\n"
                    % (line, key.encode()),
                    b"GET /models HTTP/1.1\r\nHost: x\r\nAuthorization\x01: Bearer %b\r\n\r\n"
                    % key.encode(),
                ):
                    answer = await raw(running, request)
                    head, _, body = answer.partition(b"\r\n\r\n")
                    status = int(head.split()[1])
                    assert status == (
                        400 if len(request) < 30_000 else 414 if b"&x" in request else 431
                    )
                    assert b"\r\nServer: llm-gateway" in head
                    assert (json.loads(body)["error"]["code"] == "malformed_request") is (
                        status == 400
                    )
                    told += answer.decode("utf-8", "replace")
                for secret in (key, quote(key), ascii(key)[1:-1], repr(key.encode())[2:-1]):
                    assert secret not in told
                    assert secret not in caplog.text
        _, errors = await running.json("GET", "/chat/errors")
        assert len(errors["errors"]) >= 2
        assert running.key not in json.dumps(errors)
