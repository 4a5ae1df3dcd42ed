"""What is large is looked through elsewhere, whatever becomes of where that is."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import signal
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway import workers
from gateway.errors import BadRequest, PayloadTooLarge, Unavailable
from gateway.proxy.body import parse_object
from gateway.tasks import cancel_and_wait, spawn
from gateway.workers import SMALL, Workers, is_small, with_data
from tests.harness import alive

SIZES = (100, 2**20, 5 * 2**20)


@pytest.fixture
async def at_work() -> AsyncIterator[Workers]:
    made = Workers()
    yield made
    await made.close()


def padded(source: str, size: int = 5 * 2**20) -> bytes:
    """Python, and a comment that makes it large."""
    return source.encode() + b"#" * size


async def run(at_work: Workers, source: str, size: int = 5 * 2**20) -> Any:
    return (await at_work.run(with_data, padded(source, size), eval, 0))[0]


async def test_size_of_the_work_decides_where_it_is_done(at_work: Workers) -> None:
    here = os.getpid(), threading.get_ident()
    where = "(__import__('os').getpid(), __import__('threading').get_ident())"
    at_once, thread, process = [await run(at_work, where, size) for size in SIZES]
    assert at_once == here
    assert thread[0] == here[0]
    assert thread[1] != here[1]
    assert process[0] == at_work.pid != here[0]
    assert await run(at_work, where) == process  # one for all


@pytest.mark.parametrize("size", SIZES)
async def test_what_is_wrong_is_raised_here(at_work: Workers, size: int) -> None:
    data = b'{"a": 1, "a": 2, "b": "%b"}' % (b"x" * size)
    with pytest.raises(BadRequest, match="'a' is given twice") as caught:
        await at_work.run(with_data, data, parse_object, 0)
    assert caught.value.code == "invalid_json"


async def test_what_is_refused_is_not_kept(at_work: Workers) -> None:
    """Neither here nor in the process, where no collector looks for cycles."""
    data = b'{"a": 1, "a": 2, "b": "%b"}' % (b"x" * 20 * 2**20)
    kept = []

    def resident() -> int:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{at_work.pid}/status").read_text())
        assert found is not None
        return int(found[1])  # KiB

    held = []
    gc.disable()
    try:
        for _ in range(8):
            with contextlib.suppress(BadRequest):
                await at_work.run(with_data, data, parse_object, 0)
            kept.append(sys.getrefcount(data))
            held.append(resident())
    finally:
        gc.enable()
    # The allocator keeps what one took for the next, or not. Kept, all would take 160 MiB.
    assert min(held[-4:]) - min(held[:4]) < 60 * 1024
    assert kept == kept[:1] * 8


def test_many_values_are_not_small() -> None:
    assert is_small(b"x" * SMALL)
    assert not is_small(b"x" * (SMALL + 1))
    assert not is_small(b"[]," * 50_000)


async def test_many_values_are_looked_through_by_the_process(at_work: Workers) -> None:
    data = b'{"a": [%b0]}' % (b"0," * 200_000)
    parsed, _ = await at_work.run(with_data, data, parse_object, 0)
    assert len(parsed["a"]) == 200_001
    assert at_work.pid is not None


async def test_a_process_that_dies_is_started_again(at_work: Workers) -> None:
    with pytest.raises(Unavailable, match="has ended"):
        await run(at_work, "__import__('os')._exit(1)")
    assert await run(at_work, "1 + 1") == 2
    pid = at_work.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        while alive(pid):
            await asyncio.sleep(0.01)
    assert await run(at_work, "1 + 2") == 3


async def test_what_takes_too_long_is_ended(
    at_work: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await run(at_work, "1 + 1") == 2
    monkeypatch.setattr(workers, "PATIENCE", 0.2)
    with pytest.raises(Unavailable, match=r"in 0\.2 s"):
        await run(at_work, "__import__('time').sleep(60)")
    monkeypatch.setattr(workers, "PATIENCE", 30.0)
    assert await run(at_work, "1 + 2") == 3


async def test_its_memory_is_bounded(at_work: Workers) -> None:
    with pytest.raises(PayloadTooLarge):
        await run(at_work, "len(bytearray(8 * 2**30))")
    assert await run(at_work, "1 + 2") == 3


async def test_it_ends_when_nothing_is_to_be_done(
    at_work: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "IDLE", 0.05)
    assert await run(at_work, "1 + 1") == 2
    async with asyncio.timeout(10):
        while at_work.pid is not None:
            await asyncio.sleep(0.01)
    assert await run(at_work, "1 + 2") == 3


def _references(bodies: tuple[bytes, ...], at: int) -> int:
    """How many there are to one of them, always counted in the same way."""
    return sys.getrefcount(bodies[at])


async def test_what_nobody_waits_for_any_more_is_not_kept(at_work: Workers, tmp_path: Path) -> None:
    """Who hangs up gets its room back: what was in it must be gone."""
    begun = tmp_path / "begun"
    source = f"(open({str(begun)!r}, 'w').close(), __import__('time').sleep(60))"
    large = padded(source), padded("1 + 1")
    kept = [_references(large, at) for at in (0, 1)]
    asked = [spawn(at_work.run(with_data, data, eval, 0), name="ask") for data in large]
    async with asyncio.timeout(10):
        while not begun.exists():
            await asyncio.sleep(0.01)
    pid = at_work.pid
    assert pid is not None
    await cancel_and_wait(asked.pop())
    assert _references(large, 1) == kept[1]
    assert alive(pid)  # which is at another's
    await cancel_and_wait(asked.pop())
    async with asyncio.timeout(10):
        assert await run(at_work, "1 + 2") == 3
    assert _references(large, 0) == kept[0]
    assert not alive(pid)
