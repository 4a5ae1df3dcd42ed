"""Records of requests, and looking at them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from gateway.access.request_log import Record
from gateway.proxy.sse import Usage
from tests.harness import Running

NOON = 1_770_000_000.0
CHAT = "/v1/chat/completions"


async def look(running: Running, query: str = "") -> dict[str, Any]:
    status, seen = await running.json("GET", f"/admin/requests{query}")
    assert status == 200, seen
    return dict(seen)


async def once(running: Running, done: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """What is told as soon as ``done`` says so: it is counted behind the answer."""
    async with asyncio.timeout(20):
        while not done(seen := await look(running)):
            await asyncio.sleep(0.02)
    return seen


async def event_of(events: Any) -> dict[str, Any]:
    while not (line := await events.content.readline()).startswith(b"data: "):
        assert line
    return dict(json.loads(line[6:]))


async def cancelled(running: Running, request_id: str) -> int:
    async with running.request("DELETE", f"/admin/requests/{request_id}") as response:
        return int(response.status)


def entry(number: int, *, at: float = NOON, seconds: float | None = None, **more: Any) -> Record:
    return Record(
        at,
        "k_1",
        "other" if number % 3 == 0 else "m",
        None,
        {0: 404, 1: 500}.get(number % 10, 200),
        Usage(10, 5, 3, 20.0),
        2.5 if number % 20 == 1 else 1.0 if seconds is None else seconds,
        "/v1/chat/completions?x=1",
        f"req_{number}",
        sent=True,
        **more,
    )
