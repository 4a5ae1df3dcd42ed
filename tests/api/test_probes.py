"""Routes without a key, above all the folder of challenges."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.harness import MakeGateway, fake_model


async def raw(url: str, target: str) -> bytes:
    """The answer to a request line no client library would send."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    try:
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_acme_challenges_are_served_from_their_folder_only(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        root = running.gateway.settings.public_dir
        folder = root / ".well-known/acme-challenge"
        folder.mkdir(parents=True)
        (folder / "token-_1").write_text("token-_1.thumbprint")
        (folder / "sub").mkdir()
        (root / "secret").write_text("secret")
        (folder / "link").symlink_to(root / "secret")
        base = "/.well-known/acme-challenge"
        async with running.request("GET", f"{base}/token-_1", key=None) as response:
            assert response.status == 200
            assert await response.text() == "token-_1.thumbprint"
        for target in (
            f"{base}/nothing",
            f"{base}/sub",
            f"{base}/link",
            f"{base}/",
            f"{base}/..%2F..%2Fsecret",
            f"{base}/../../secret",
            f"{base}/%2e%2e/%2e%2e/secret",
            f"{base}/..\\..\\secret",
            f"{base}//secret",
            f"{base}/%00",
            "/.well-known/secret",
        ):
            with subtests.test(f"{target!r:.80}"):
                answer = await raw(running.url, target)
                status = int(answer.split(b" ")[1])
                assert status in (400, 401, 404), (target, answer)
                assert b"\r\n\r\nsecret" not in answer


async def test_ready_is_503_while_stopping(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        assert (await running.json("GET", "/ready", key=None))[0] == 200
        async with running.request("GET", "/ping", key=None) as response:
            assert await response.text() == "pong"
        running.gateway.lifecycle.stopping.set()
        assert (await running.json("GET", "/ready", key=None))[0] == 503
        assert (await running.json("GET", "/health", key=None))[0] == 200
        async with running.request("GET", "/models") as response:
            assert response.status == 503
            assert response.headers["Retry-After"]
            assert json.loads(await response.read())["error"]["code"] == "shutting_down"
