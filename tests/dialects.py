"""A small request in each dialect, and what its answer took."""

from __future__ import annotations

from typing import Any

from tests.harness import Running

MESSAGES = [{"role": "user", "content": "hi"}]
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "hi"},
    "/completion": {"prompt": "hi"},
    "/infill": {"input_prefix": "a", "input_suffix": "b"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": MESSAGES},
}


def tokens(answer: dict[str, Any]) -> int:
    usage = answer.get("usage") or {}
    told = (answer.get("tokens_predicted"), *map(usage.get, ("completion_tokens", "output_tokens")))
    return next(number for number in told if number is not None)


async def asked(running: Running, path: str, **fields: Any) -> int:
    body = {**ROUTES[path], "temperature": 0, **fields}
    status, answer = await running.json("POST", path, json=body)
    assert status == 200, (path, fields, answer)
    return tokens(answer)
