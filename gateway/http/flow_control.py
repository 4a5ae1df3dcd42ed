"""Back-pressure: whether the other side takes what is written for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol


class Flow(Protocol):
    """The back-pressure of an answer, as whoever writes it sees it: see :class:`FlowControl`."""

    @property
    def full(self) -> bool: ...

    when_full: Callable[[], None] | None

    async def drain(self) -> None: ...


class FlowControl:
    """The back-pressure of one connection, of a client or to a backend.

    The connection's protocol passes on what its transport tells it: :meth:`pause` when more
    waits for the other side than the transport likes, :meth:`resume` when there is room again, and
    :meth:`end` when the connection is lost.
    """

    __slots__ = ("_ended", "_room", "full", "when_full")

    def __init__(self) -> None:
        #: Whether the other side must read before more is written.
        self.full = False
        #: Called when the connection becomes full, to pause the source. It isn't called for a
        #: connection that is full already.
        self.when_full: Callable[[], None] | None = None
        self._ended = False
        self._room: asyncio.Future[None] | None = None  # what :meth:`drain` waits for

    def pause(self) -> None:
        """Note that the transport is full."""
        self.full = True
        if self.when_full is not None:
            self.when_full()

    def resume(self) -> None:
        """Note that the transport has room."""
        self.full = False
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def end(self) -> None:
        """Note that the connection is lost: nobody takes anything any more."""
        self._ended = True
        self.when_full = None
        if self._room is not None and not self._room.done():
            self._room.set_exception(_gone())

    async def drain(self) -> None:
        """Return when there is room; for one task at a time.

        Raises ``ConnectionResetError`` if the other side has gone, or goes meanwhile.
        """
        if self._ended:
            raise _gone()
        if self.full:
            self._room = asyncio.get_running_loop().create_future()
            try:
                await self._room
            finally:
                self._room = None


def _gone() -> ConnectionResetError:
    return ConnectionResetError("the other side has gone")
