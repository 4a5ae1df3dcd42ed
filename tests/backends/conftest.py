"""A folder for scripted models, looked through for leftovers after each test."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop
from scripted import Box, gone

#: What starts processes is tried on both loops; the rest runs on the one the gateway prefers.
_ON_BOTH = {"test_process.py"}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
        "uvloop": uvloop.new_event_loop
    }
    if item.path.name in _ON_BOTH:
        factories["asyncio"] = asyncio.new_event_loop
    return factories


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    # Not tmp_path: the path of a Unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        box = Box(Path(folder))
        open_files = _open_files()
        yield box
        # What was killed may need a moment to disappear, but nothing may stay.
        assert [pid for pid in box.alive() if not await gone(pid, 10)] == []
        assert box.left() == []
        # A thread whose caller has gone may still be reading a file.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                while _open_files() > open_files:
                    gc.collect()
                    await asyncio.sleep(0.02)
        assert _open_files() <= open_files


def _open_files() -> int:
    found = 0
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - Path.iterdir has more open
        with contextlib.suppress(OSError):
            # libuv keeps one of these for each loop, in case there are no more files to be had.
            found += os.readlink(f"/proc/self/fd/{number}") != "/dev/null"  # noqa: PTH115
    return found
