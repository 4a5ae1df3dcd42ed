"""`llm-gateway serve` as a process, and those below it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.harness import (
    Served,
)
from tests.test_demo import get

Serve = Callable[..., Served]
STORY: Any = [{"role": "user", "content": "Tell me a long story."}]


def backend_pids(served: Served) -> list[int]:
    _, answer = get(served, "/admin/models")
    return [model["pid"] for model in answer["models"] if model["pid"]]
