"""What the real llama-server reads otherwise than Python does, and that it doesn't get it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from tests.harness import MakeGateway, Running
from tests.wire import connected, head


@pytest.fixture
async def running(make_gateway: MakeGateway, tiny_model: Path) -> AsyncIterator[Running]:
    model = {"params": {"model": str(tiny_model), "ctxSize": 256, "threads": 1}}
    async with make_gateway({"m": model}, llama_server="auto") as running:
        await running.gateway.scheduler.load("m")
        yield running


async def directly(running: Running, target: str) -> int:
    """The status of a POST to the llama-server itself."""
    backend = running.gateway.scheduler.backend("m")
    assert backend is not None
    command = Path(f"/proc/{backend.pid}/cmdline").read_text().split("\0")
    connector = aiohttp.UnixConnector(command[command.index("--host") + 1])
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(
            URL(f"http://llama{target}", encoded=True), json={"content": "hi"}
        ) as response,
    ):
        return response.status


async def test_percent_u_is_refused(running: Running, subtests: pytest.Subtests) -> None:
    """cpp-httplib's own coding: a way around every rule about paths, if it came through."""
    path, action = "/%u0074okenize", "/slots/0?action=%u0073ave"
    assert await directly(running, path) == 200
    assert await directly(running, action) == await directly(running, "/slots/0?action=save") != 200
    async with connected(running) as client:
        for target in (path, f"/upstream/m{path}", f"/upstream/m{action}"):
            with subtests.test(f"{target!r:.80}"):
                client.send(head(running, f"POST {target} HTTP/1.1", "Content-Length: 0"))
                assert await client.error() == (400, "malformed_target")
