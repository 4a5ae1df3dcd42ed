"""Which event loops the tests of the HTTP server run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

try:
    import uvloop
except ImportError:
    uvloop = None

#: What reads and writes sockets is tried on both loops.
_ON_BOTH = {"test_connections.py", "test_fast_json.py", "test_half_closed.py", "test_vanished.py"}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
        "asyncio": asyncio.new_event_loop
    }
    if item.path.name in _ON_BOTH and uvloop is not None:
        factories["uvloop"] = uvloop.new_event_loop
    return factories
