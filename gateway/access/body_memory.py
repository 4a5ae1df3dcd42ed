"""Memory for bodies: how much those of all requests under way may take together.

A body stays in memory until its request is answered, because it may have to be sent once more.
Small bodies are bounded by the number of requests. A large body must get its room before more of it
is read, and waits until there is some. One key never gets more than half of the memory, so that
there is always some for others. The number of requests that wait is bounded as well.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import Final, NamedTuple

from gateway.errors import Unavailable

#: How many requests may wait for room, in all and of one key, and for how many seconds.
_WAITING: Final = 64
WAITING_OF_ONE: Final = 16
_PATIENCE: Final = 20.0  # less than `limits.body_timeout`, by default


class _QueuedBody(NamedTuple):
    key_id: str
    size: int
    granted: asyncio.Future[None]


class BodyMemory:
    """A budget of ``size`` bytes for the bodies of requests."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken = 0
        self._of: Counter[str] = Counter()  # bytes, by key
        self._waiting: deque[_QueuedBody] = deque()

    @property
    def waiting(self) -> int:
        """Return how many requests wait."""
        return len(self._waiting)

    async def take(self, key_id: str, size: int) -> BodyPlace:
        """Return room for a body of ``size`` bytes of the key ``key_id``, to be given back.

        Raises :class:`Unavailable` if too many wait, or there was none for too long.
        """
        size = min(size, self.size)
        if self._fits(key_id, size):
            return self._given(key_id, size)
        mine = sum(one.key_id == key_id for one in self._waiting)
        if len(self._waiting) >= _WAITING or mine >= WAITING_OF_ONE:
            raise _full("too many wait for room already")
        waiting = _QueuedBody(key_id, size, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            async with asyncio.timeout(_PATIENCE):
                await waiting.granted
        except BaseException as error:
            if waiting.granted.done() and not waiting.granted.cancelled():
                self._given(key_id, size, counted=True).give_back()  # in the last moment
            elif waiting in self._waiting:  # or it was taken out in this very moment
                self._waiting.remove(waiting)
            if isinstance(error, TimeoutError):
                raise _full(f"there was no room in {_PATIENCE:g} s") from None
            raise
        return self._given(key_id, size, counted=True)

    def _fits(self, key_id: str, size: int) -> bool:
        of = self._of[key_id]
        return self.taken + size <= self.size and (not of or of + size <= self.size // 2)

    def _given(self, key_id: str, size: int, *, counted: bool = False) -> BodyPlace:
        if not counted:
            self.taken += size
            self._of[key_id] += size
        return BodyPlace(self, key_id, size)

    def give_back(self, key_id: str, size: int) -> None:
        """Free ``size`` bytes for the request that has waited longest among those that fit."""
        self.taken -= size
        self._of[key_id] -= size
        if self._of[key_id] <= 0:
            del self._of[key_id]
        for waiting in list(self._waiting):
            if self._fits(waiting.key_id, waiting.size):
                self._waiting.remove(waiting)
                if not waiting.granted.done():
                    self.taken += waiting.size
                    self._of[waiting.key_id] += waiting.size
                    waiting.granted.set_result(None)


class BodyPlace:
    """The memory that one body may take."""

    __slots__ = ("_key_id", "_memory", "_size")

    def __init__(self, memory: BodyMemory, key_id: str, size: int) -> None:
        self._memory = memory
        self._key_id = key_id
        self._size = size

    def shrink(self, size: int) -> None:
        """Keep only ``size`` bytes, if that is less, and give back the rest."""
        if size < self._size:
            free, self._size = self._size - size, size
            self._memory.give_back(self._key_id, free)

    def give_back(self) -> None:
        """Give back all of the room: the body is gone."""
        self.shrink(0)


def _full(why: str) -> Unavailable:
    return Unavailable(
        f"the gateway has no memory for another large body now (limits.body_memory): {why}",
        code="bodies_too_many",
    )
