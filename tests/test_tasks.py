"""Tasks that must last: a crash is logged, and ends nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from gateway.tasks import cancel_and_wait, spawn_lasting


def crashing(times: int, then: asyncio.Event) -> Callable[[], Coroutine[Any, Any, None]]:
    """Work that crashes so many times, and then sets ``then`` and returns."""
    left = [None] * times

    async def work() -> None:
        if left:
            left.pop()
            raise ValueError("what nobody expected")
        then.set()

    return work


async def test_lasting_work_begins_anew_after_each_crash_and_each_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    works = asyncio.Event()
    async with asyncio.timeout(10):
        await spawn_lasting(crashing(3, works), name="watch it", pause=0.001)

    assert works.is_set()
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.message for record in told] == [
        f"task watch it crashed, it begins anew in {pause} s" for pause in (0.001, 0.002, 0.004)
    ]
    assert all(record.exc_info for record in told)


async def test_lasting_work_ends_when_it_is_cancelled_even_in_its_pause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    works = asyncio.Event()
    task = spawn_lasting(crashing(1, works), name="watch it", pause=60)
    async with asyncio.timeout(10):
        while "crashed" not in caplog.text:
            await asyncio.sleep(0)
        await cancel_and_wait(task)

    assert task.cancelled()
    assert not works.is_set()
