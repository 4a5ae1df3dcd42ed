"""The ordinary clients of a door, at a rate that is theirs together."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

from tests.soak.allowed import CLOSED, REFUSED
from tests.soak.asking import Asked, any_request
from tests.soak.client import Answer, Connection
from tests.soak.door import Door

#: Clients of a door at once.
CLIENTS = 24
#: The share of requests that come by a new connection.
_FRESH = 0.05


class Crowd:
    """Clients that ask on, each one request at a time, and look at every answer.

    ``rate``: requests a second of all together, where answers come as fast.
    """

    def __init__(self, door: Door, rate: float, chance: random.Random) -> None:
        self._door = door
        self._pause = CLIENTS / rate
        self._chance = chance
        self._over = asyncio.Event()

    @contextlib.asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """They ask until the end of the block, where each gets its last answer."""
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._client(), name=f"client {number} of {self._door.name}")
            try:
                yield
            finally:
                self._over.set()

    async def _client(self) -> None:
        connection: Connection | None = None
        while not await self._paused():
            if connection is None or connection.closed or self._chance.random() < _FRESH:
                if connection is not None:
                    connection.abort()
                connection = await self._connected()
                if connection is None:
                    continue
            connection = await self._ask(connection, any_request(self._chance, self._door.key))
        if connection is not None:
            connection.abort()

    async def _paused(self) -> bool:
        """Pause, and return whether it is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._chance.expovariate(1 / self._pause)):
                await self._over.wait()
        return self._over.is_set()

    async def _connected(self) -> Connection | None:
        door = self._door
        answer = Answer(asyncio.get_running_loop().time())
        try:
            return await Connection.open(door.port, door.trust)
        except OSError as error:
            answer.ended = asyncio.get_running_loop().time()
            asked = Asked(f"connection: {error!r}", b"", lambda _: REFUSED, counted=False)
            answer.received, answer.complete = 1, True  # the outcome is the connection's
            door.tally.note(door.name, asked, answer)
            return None

    async def _ask(self, connection: Connection, asked: Asked) -> Connection | None:
        """Ask, once more by another connection if this one was closed; the one to go on with."""
        door, reused = self._door, connection.asked > 0
        answer = await connection.ask(asked.data)
        if door.tally.note(door.name, asked, answer, reused=reused) != CLOSED:
            return connection
        again = await self._connected()
        if again is not None:
            door.tally.note(door.name, asked, await again.ask(asked.data))
        return again
