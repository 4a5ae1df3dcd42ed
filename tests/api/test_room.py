"""Memory for large bodies: who waits for it, and goes."""

from __future__ import annotations

import asyncio

import pytest

from gateway.api.room import Room
from gateway.tasks import spawn


async def test_who_goes_in_the_moment_that_there_is_room_is_not_in_the_way() -> None:
    room = Room(100)
    first = await room.take("a", 100)
    waiting = spawn(room.take("b", 60), name="wait")
    after = spawn(room.take("c", 50), name="wait behind it")
    while room.waiting < 2:
        await asyncio.sleep(0)
    waiting.cancel()
    first.give_back()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    (await after).give_back()
    assert (room.taken, room.waiting) == (0, 0)
