"""A key that a client has put into a path is written nowhere."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from gateway.access.request_log import path_of
from gateway.backends.logring import LogRing
from gateway.log_format import harmless
from tests.harness import MakeGateway, fake_model

KEY = "llmgw_" + 12 * "Ab3x" + "9"
ENCODED = "".join(f"%{ord(char):02X}" for char in KEY)


PATHS = [
    f"/upstream/m/{KEY}",
    f"/upstream/m/x/{KEY}/y?key={KEY}",
    f"/upstream/m/x?api_key={KEY}",
    f"/upstream/m/x?access_token={KEY}&authKey={KEY}",
    f"/upstream/m/x%3Fkey={KEY}",
    f"/upstream/m/{ENCODED}",
    f"/upstream/m/{quote(ENCODED)}",
    f"/nowhere/{KEY}",
    f"/nowhere/{ENCODED}",
    f"/nowhere/{quote(ENCODED)}",
    f"/nowhere%3Fapi_key={KEY}?key={KEY}",
    f"/metrics?model=m&key={KEY}",
    f"/{KEY}/v1/models",
    f"/v1/models/{KEY}",
    f"/admin/models/m/log?key={KEY}&follow=false",
    f"/\x7f{ENCODED}",  # answered before it is a request
]


async def test_key_in_a_path_is_written_nowhere(
    make_gateway: MakeGateway, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        address = urlsplit(running.url)
        for path in PATHS:
            for method in ("GET", "POST"):
                reader, writer = await asyncio.open_connection(address.hostname, address.port)
                head = f"{method} {path} HTTP/1.1\r\nHost: {address.netloc}\r\n"
                head += f"X-Api-Key: {running.key}\r\nContent-Length: 0\r\n"
                writer.write(f"{head}Connection: close\r\n\r\n".encode())
                await reader.read()
                writer.close()
        await running.gateway.accounting.log.write()
        _, requests = await running.json("GET", "/admin/requests")
        _, state = await running.json("GET", "/admin/status")
        async with running.request("GET", "/metrics") as answer:
            metrics = await answer.text()
        async with running.request("GET", "/admin/models/m/log?follow=false") as answer:
            model_log = await answer.text()
    assert len(requests["ended"]) >= 14
    database = "".join(file.read_bytes().decode("latin-1") for file in _databases(tmp_path))
    assert "/upstream" in caplog.text
    assert "SQLite" in database
    written = {
        "requests": str(requests),
        "state": str(state),
        "metrics": metrics,
        "model's log": model_log,
        "log": caplog.text,
        "database": database,
    }
    told = [
        (where, text[max(text.find(secret) - 60, 0) : text.find(secret) + 70])
        for where, text in written.items()
        for secret in (KEY[-12:], ENCODED[-12:], quote(ENCODED)[-12:])
        if secret in text
    ]
    assert not told


def _databases(folder: Path) -> list[Path]:
    found = [*folder.rglob("gateway.db*")]
    assert found
    return found


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (f"/x/{KEY}/y", "/x/llmgw_.../y"),
        (f"/X/{KEY.upper()}", "/X/LLMGW_..."),
        ("/v1/sk-abc-DEF_1/models", "/v1/sk-.../models"),
        ("/v1/models&authKey=short&x=1", "/v1/models&authKey=...&x=1"),
        ("/v1/models%3FauthKey=short", "/v1/models"),
        ("/Bearer%20short", "/Bearer%20..."),
        ("/api_key=short/models", "/api_key=.../models"),
        ("/%" + 9 * "25" + "41", "/"),
    ],
)
def test_secret_in_a_path_is_left_out(path: str, shown: str) -> None:
    assert harmless(path) == shown
    assert path_of(f"{path}?key=short") == shown.replace("%20", " ")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/upstream/qwen%2Fcoder/slots/0",
        "/v1/models/task-1:desk-lamp",
        "/admin/keys/k_ab12cd34",
        "/tokenize",
        "/monkey/keys",
    ],
)
def test_path_without_secrets_is_shown_as_it_is(path: str) -> None:
    assert (harmless(path), path_of(path)) == (path, path)


def test_key_in_a_line_of_llama_server_is_left_out() -> None:
    ring = LogRing()
    ring.feed(f"request: GET /x/{KEY} 127.0.0.1 404\n".encode())
    assert ring.tail() == ["request: GET /x/llmgw_... 127.0.0.1 404"]
