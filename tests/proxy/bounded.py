"""Requests that are checked against limits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.config.settings import RequestSettings
from gateway.errors import BadRequest
from gateway.proxy.bounds import Bounds, all_of

KINDS = ("chat", "responses", "anthropic", "completion", "none")


def checked(body: dict[str, Any], kind: str = "chat", **settings: Any) -> None:
    bounds = Bounds(RequestSettings(**settings))
    if (later := bounds.check(body, kind, len(json.dumps(body)))) is not None:
        all_of(later)


def refused(body: dict[str, Any], kind: str = "chat", **settings: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        checked(body, kind, **settings)
    return caught.value


def nested(levels: int) -> Any:
    schema: Any = {"type": "integer"}
    for _ in range(levels):
        schema = {"anyOf": [schema]}
    return schema


def tools(*schemas: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"parameters": one}} for one in schemas]}


def text(size: int) -> str:
    return "a" * size


def honest_tools() -> dict[str, Any]:
    """What agents send: 60 tools in 100 KB."""
    field = {"type": "string", "description": text(60), "maxLength": 65536, "pattern": "^[a-z]*$"}
    schema = {
        "type": "object",
        "properties": {
            **{f"field{i}": field for i in range(10)},
            "list": {"type": "array", "maxItems": 100, "items": {"enum": ["a", "b"]}},
        },
    }
    return tools(*[schema] * 60)
