"""One look for all who watch the same."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from gateway.pipeline.events import Board
from tests.harness import MakeGateway, fake_model


class Changing:
    """A source of changes."""

    def __init__(self) -> None:
        self.told: set[Callable[[], None]] = set()

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        self.told.add(callback)
        return lambda: self.told.discard(callback)

    def change(self) -> None:
        for callback in tuple(self.told):
            callback()


async def test_viewers_share_one_look_a_turn() -> None:
    source, looks = Changing(), 0
    board = Board(source)

    def look() -> int:
        nonlocal looks
        looks += 1
        return looks

    viewers = [board.turns() for _ in range(50)]
    for viewer in viewers:
        await anext(viewer)
        assert board.seen("what", look) == 1
    for count in range(2, 5):
        for _ in range(100):
            source.change()  # one turn, however many they are
        for viewer in viewers:
            await anext(viewer)
            assert board.seen("what", look) == count
    for viewer in viewers:
        await viewer.aclose()
    assert not source.told
    viewer = board.turns()
    await anext(viewer)
    assert board.seen("what", look) == 5  # what was seen before may be long ago
    await viewer.aclose()


async def test_who_is_slow_has_the_newest() -> None:
    source = Changing()
    board, value = Board(source), 0
    slow, quick = board.turns(), board.turns()
    await anext(slow)
    await anext(quick)
    for value in range(1, 10):  # noqa: B007
        source.change()
        await anext(quick)
    await anext(slow)
    assert board.seen("value", lambda: value) == 9
    async with asyncio.timeout(10):
        await anext(slow)  # what has been missed doesn't come after it: one more, when it is time
    for viewer in (slow, quick):
        await viewer.aclose()


async def lines(answer: aiohttp.ClientResponse, words: bytes) -> None:
    async with asyncio.timeout(10):
        while words not in await answer.content.readline():
            pass


async def test_many_who_watch_share_one_look(
    make_gateway: MakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each kind of key; all are told, and the models are looked at once for all."""
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        ring, scheduler = running.gateway.ring, running.gateway.scheduler
        assert ring is not None
        _, key = await ring.create("one", models=["m"])
        looks, status = 0, scheduler.status

        def counted() -> object:
            nonlocal looks
            looks += 1
            return status()

        @contextlib.asynccontextmanager
        async def watching() -> AsyncIterator[list[aiohttp.ClientResponse]]:
            async with contextlib.AsyncExitStack() as stack:
                yield [
                    await stack.enter_async_context(running.request("GET", "/status", **who))
                    for who in ({}, {"key": key})
                    for _ in range(20)
                ]

        async with watching() as answers:
            for answer in answers:
                await lines(answer, b'"Terminated"')
            monkeypatch.setattr(scheduler, "status", counted)
            await scheduler.load("m")
            for answer in answers:
                await lines(answer, b'"Idle"')
            # One or two for each change, of which a load is a few; there were 40 at each.
            assert looks < len(answers)
