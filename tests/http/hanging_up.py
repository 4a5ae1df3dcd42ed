"""Requests that are hung up on, and what is recorded of them."""

from __future__ import annotations

import asyncio

import aiohttp

from gateway.access.request_log import Record
from tests.harness import Running
from tests.scripted import until

STORY = "the story and a the " * 20


async def limited(running: Running, **limits: int) -> str:
    assert running.gateway.ring is not None
    return (await running.gateway.ring.create("limited", limits=limits))[1]


async def recorded(running: Running, number: int = 1) -> Record:
    """The last of so many records, as soon as they are there."""
    kept = running.gateway.accounting
    async with asyncio.timeout(60):
        while len(kept.recent) < number:
            await asyncio.sleep(0.01)
    assert len(kept.recent) == number
    assert kept.unsettled == 0
    return kept.recent[-1]


async def hang_up_in(response: aiohttp.ClientResponse, pieces: int) -> None:
    """Read so many pieces of an answer and go."""
    assert response.status == 200
    for _ in range(pieces):
        assert await response.content.readany()
    response.close()


async def on_its_way(running: Running) -> None:
    """Return when a request has been sent to its model."""
    scheduler = running.gateway.scheduler
    await until(scheduler, lambda: scheduler.in_flight > 0)
    under_way = running.gateway.accounting.open_requests
    async with asyncio.timeout(10):
        while not any(request.so_far().sent for request in under_way):
            await asyncio.sleep(0.01)
