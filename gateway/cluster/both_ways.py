"""Two connections that are one way: what comes on either goes out on the other, unread, and each is
read from only as fast as the other one takes it.
"""

from __future__ import annotations

import asyncio


class NearEnd(asyncio.Protocol):
    """The connection of whoever wants through; :attr:`_far` is the one that goes on from it, once
    there is one.
    """

    __slots__ = ("_far", "_transport")

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._far: asyncio.Transport | None = None

    def pause_writing(self) -> None:
        if self._far is not None and not self._far.is_closing():
            self._far.pause_reading()

    def resume_writing(self) -> None:
        if self._far is not None and not self._far.is_closing():
            self._far.resume_reading()

    def drop_far(self) -> None:
        """Close the other connection at once, if there is one."""
        # Where it has closed already, with something left to write, abort() would fail (3.11).
        if self._far is not None and not self._far.is_closing():
            self._far.abort()

    # --- from the far end ----------------------------------------------------------------------

    def take(self, data: bytes) -> None:
        """Send on what has come from there."""
        raise NotImplementedError

    def far_lost(self, exc: Exception | None) -> None:
        """Note that the other connection has ended, and why."""
        raise NotImplementedError

    def pause(self) -> None:
        """Read no more: the far end takes nothing."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Go on reading."""
        if not self._transport.is_closing():
            self._transport.resume_reading()


class FarEnd(asyncio.Protocol):
    """The connection that goes on from ``near``."""

    __slots__ = ("_near", "transport")

    transport: asyncio.Transport

    def __init__(self, near: NearEnd) -> None:
        self._near = near

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a Protocol gets a Transport

    def data_received(self, data: bytes) -> None:
        self._near.take(data)

    def pause_writing(self) -> None:
        self._near.pause()

    def resume_writing(self) -> None:
        self._near.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self._near.far_lost(exc)
