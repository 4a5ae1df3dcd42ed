"""Whether the gateway starts, runs or stops, and how many requests are being answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence


class Lifecycle:
    """The lifecycle of a gateway: ready, stopping, and the requests under way; :meth:`quiet` waits
    for the last of them.
    """

    def __init__(self) -> None:
        self.ready = False
        self.stopping = asyncio.Event()
        #: Whether new connections wait for the next gateway, at sockets that outlive this one.
        self.hands_over = False
        #: The URLs for clients on this machine, like ``http://127.0.0.1:8080``.
        self.urls: Sequence[str] = ()
        #: The URLs where plain HTTP is redirected to https.
        self.redirect_urls: Sequence[str] = ()
        #: Tells the number of connections of clients.
        self.connections: Callable[[], int] = lambda: 0
        #: What ends the requests under way, each of whose clients is told why.
        self.give_up: Callable[[], None] = lambda: None
        self._active = 0  # requests, but for streams that never end by themselves (/status)
        self._quiet: asyncio.Event | None = None  # where somebody waits for it

    @property
    def finishes(self) -> bool:
        """Whether each connection ends after the request that is being answered on it."""
        return self.hands_over and self.stopping.is_set()

    def enter(self) -> None:
        """A request has come, or an endless stream has ended."""
        self._active += 1

    def leave(self) -> None:
        """A request has been answered, or has turned out to be an endless stream."""
        self._active -= 1
        if not self._active and self._quiet is not None:
            self._quiet.set()

    @property
    def is_awaited(self) -> bool:
        """Whether somebody has waited for :meth:`quiet`."""
        return self._quiet is not None

    async def quiet(self) -> None:
        """Return when no request is being answered."""
        while self._active:  # new work may come before the waiting task runs
            self._quiet = self._quiet or asyncio.Event()
            self._quiet.clear()
            await self._quiet.wait()
