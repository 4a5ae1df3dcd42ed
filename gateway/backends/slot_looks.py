"""Looks at the slots of a llama-server, shared by all who want to know what they do.

llama-server notices that the client of an answer has gone only when it has had no result for
anybody for a second (``recv_with_timeout`` in ``tools/server/server-queue.cpp``), and each look is
one. So they are far enough apart for that second to pass, however many want to know.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from typing import Final, Protocol

from gateway.errors import GatewayError
from gateway.tasks import spawn
from gateway.upstream import HeadTimeout, Upstream, UpstreamRequest

TARGET: Final = "/slots"
#: Seconds between two looks: that second, and a step of llama-server.
_EVERY: Final = 1.5
#: Seconds that a look may take: it is answered between two steps, which may be long.
_PATIENCE: Final = 30.0


class Looked(Protocol):
    """A backend, with the connections to the process that runs now."""

    @property
    def pool(self) -> Upstream: ...


class SlotLooks:
    """Those at ``backend``, which has them."""

    def __init__(self, backend: Looked) -> None:
        # Weak: a circle of objects that were there at the start is never collected (gc.freeze).
        self._backend = weakref.ref(backend)
        self._last = float("-inf")
        self._coming: asyncio.Task[bytes | None] | None = None
        #: How many are under way: requests that nobody's answer depends on.
        self.under_way = 0

    async def now(self) -> bytes | None:
        """Look at once, as who does so only once may; return what :meth:`next` does."""
        while (backend := self._backend()) is not None:
            self._last = time.monotonic()
            self.under_way += 1
            try:
                fetched = await backend.pool.fetch(
                    UpstreamRequest("GET", TARGET), timeout=_PATIENCE
                )
            except HeadTimeout:
                continue  # a long step; one that takes for ever is the watchdog's business
            except GatewayError:
                return None
            finally:
                self.under_way -= 1
            return fetched.body if fetched.status == 200 else None
        return None

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
