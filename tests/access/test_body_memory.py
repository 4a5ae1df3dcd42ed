"""Memory for large bodies: who waits for it, and goes."""

from __future__ import annotations

import asyncio

import pytest

from gateway.access.body_memory import BodyMemory
from gateway.tasks import spawn


async def test_who_leaves_as_room_is_given_does_not_keep_it() -> None:
    memory = BodyMemory(100)
    first = await memory.take("a", 100)
    waiting = spawn(memory.take("b", 60), name="wait")
    after = spawn(memory.take("c", 50), name="wait behind it")
    while memory.waiting < 2:
        await asyncio.sleep(0)
    waiting.cancel()
    first.give_back()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    (await after).give_back()
    assert (memory.taken, memory.waiting) == (0, 0)
