"""Looks at the slots of a llama-server, shared by all who want to know what they do.

llama-server notices that the client of an answer has gone only when it has had no result for
anybody for a second (``recv_with_timeout`` in ``tools/server/server-queue.cpp``), and each look is
one. So they are far enough apart for that second to pass, however many want to know.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from gateway.errors import GatewayError
from gateway.tasks import spawn
from gateway.upstream import HeadTimeout, Upstream, UpstreamRequest

TARGET: Final = "/slots"
#: Seconds between two looks: that second, and a step of llama-server.
_EVERY: Final = 1.5
#: Seconds that a look may take: it is answered between two steps, which may be long.
_PATIENCE: Final = 30.0


class SlotLooks:
    """Those at one backend. ``pool`` returns the connections to the process that runs now."""

    def __init__(self, pool: Callable[[], Upstream]) -> None:
        self._pool = pool
        self._last = float("-inf")
        self._coming: asyncio.Task[bytes | None] | None = None

    async def now(self) -> bytes | None:
        """Look at once, as who does so only once may; return what :meth:`next` does."""
        while True:
            self._last = time.monotonic()
            try:
                pool = self._pool()
                fetched = await pool.fetch(UpstreamRequest("GET", TARGET), timeout=_PATIENCE)
            except HeadTimeout:
                continue  # a long step; one that takes for ever is the watchdog's business
            except GatewayError:
                return None
            return fetched.body if fetched.status == 200 else None

    async def next(self) -> bytes | None:
        """Return what ``GET /slots`` answers when the next look is due.

        ``None``: there is no process any more, or it doesn't tell.
        """
        if self._coming is None:
            self._coming = spawn(self._look(), name="look at slots")
        return await asyncio.shield(self._coming)

    async def _look(self) -> bytes | None:
        try:
            await asyncio.sleep(self._last + _EVERY - time.monotonic())
        finally:
            self._coming = None  # who comes from now on wants to know what comes after this look
        return await self.now()
