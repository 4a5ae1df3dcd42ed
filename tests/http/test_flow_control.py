"""Back-pressure: who writes waits for a client that has not read."""

from __future__ import annotations

import asyncio

import pytest

from gateway.http.flow_control import FlowControl
from gateway.tasks import spawn


async def test_a_client_with_room_is_not_waited_for() -> None:
    await asyncio.wait_for(FlowControl().drain(), 1)


async def test_a_full_client_is_waited_for_until_it_has_room() -> None:
    flow = FlowControl()
    flow.pause()
    waiting = spawn(flow.drain(), name="drain")
    await asyncio.sleep(0)
    assert not waiting.done()
    flow.resume()
    await asyncio.wait_for(waiting, 1)


async def test_who_waits_for_a_client_is_told_that_it_has_gone() -> None:
    flow = FlowControl()
    flow.pause()
    waiting = spawn(flow.drain(), name="drain")
    await asyncio.sleep(0)
    flow.end()
    with pytest.raises(ConnectionResetError):
        await waiting
    with pytest.raises(ConnectionResetError):
        await flow.drain()


async def test_a_wait_that_was_cancelled_stands_in_nobodys_way() -> None:
    flow = FlowControl()
    flow.pause()
    waiting = spawn(flow.drain(), name="drain")
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    flow.resume()
    await asyncio.wait_for(flow.drain(), 1)


def test_what_writes_is_told_each_time_that_its_client_is_full() -> None:
    told = []
    flow = FlowControl()
    flow.when_full = lambda: told.append(flow.full)
    for _ in range(2):
        flow.pause()
        flow.resume()
    assert told == [True, True]
