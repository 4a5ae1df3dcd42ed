"""Event loops that the tests of the HTTP server run on, and fixtures that several share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness import MakeGateway, Running
from tests.wire import with_tls

try:
    import uvloop
except ImportError:
    uvloop = None

#: What reads and writes sockets is tried on both loops.
_ON_BOTH = {
    "test_connections.py",
    "test_fast_json_back_pressure.py",
    "test_fast_json_connections.py",
    "test_fast_json_end.py",
    "test_fast_json_heads.py",
    "test_fast_json_requests.py",
    "test_half_closed.py",
    "test_vanished.py",
}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
        "asyncio": asyncio.new_event_loop
    }
    if item.path.name in _ON_BOTH and uvloop is not None:
        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def secured(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[dict[str, Any], Any]:
    """Settings, and what a client connects with."""
    if not request.param:
        return {}, {}
    tls, trusting = with_tls(tmp_path)
    return {"tls": tls}, {"ssl": trusting}


@pytest.fixture
async def running(
    make_gateway: MakeGateway, parrot_model: Path, minilm_model: Path, tiny_model: Path
) -> AsyncIterator[Running]:
    minilm = {"params": {"model": str(minilm_model), "threads": 1}}
    parrot = {"params": {"model": str(parrot_model), "threads": 1}}
    models = {
        "parrot": {**parrot, "personalities": {"kind": "Be kind."}},
        "named": {"params": {"model": str(tiny_model), "threads": 1}, "template": "zephyr"},
        # The same by a flag, of which models.json doesn't say what it does.
        "flagged": {**parrot, "extraArgs": ["--no-jinja"]},
        "embed": {**minilm, "embeddings": True},
        "rerank": {**minilm, "reranking": True},
        "unmarked": minilm,
    }
    async with make_gateway(models, llama_server="auto") as running:
        yield running
