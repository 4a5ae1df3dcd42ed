"""How a body with a fault is refused."""

from __future__ import annotations

import copy
from typing import Any

from tests.harness import Running

CHAT, RESPONSES, ANTHROPIC = "/v1/chat/completions", "/v1/responses", "/v1/messages"


USER = {"role": "user", "content": "hi"}


async def refused(
    running: Running, path: str, body: dict[str, Any]
) -> tuple[str, str | None, str | None]:
    """Message, ``param`` and code of the 400 that ``body`` gets, at both doors, streamed or not."""
    found = set()
    for stream in (False, True):
        for query in ("", "?"):  # with a query it is aiohttp that serves it
            sent = {**copy.deepcopy(body), **({"stream": True} if stream else {})}
            async with running.request("POST", path + query, json=sent) as answer:
                said = await answer.json()
                assert answer.status == 400, said
                assert answer.headers["x-should-retry"] == "false"
                assert answer.content_type == "application/json"
                assert answer.headers["X-Request-Id"]
            error = said["error"]
            if "/messages" in path:
                assert said["type"] == "error"
                assert error["type"] == "invalid_request_error"
            found.add((error["message"], error.get("param"), error.get("code")))
    assert len(found) == 1, found
    return found.pop()


def loaded(running: Running) -> list[str]:
    return [status.name for status in running.gateway.scheduler.status() if status.pid]
