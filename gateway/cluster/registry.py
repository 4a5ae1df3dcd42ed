"""The registry of nodes: who is there, and which gateway places models. Held by one Ray actor.

Nodes announce themselves, again and again, so that a registry that was started anew knows all of
them within seconds. That a node is gone, it need not know: gateways hear that from the node's own
actor.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

#: Seconds between two announcements of a node, and how long a question waits for news.
ANNOUNCE_EVERY = 10.0
_WAIT = 20.0
#: Seconds for which the right to place models holds without being asked for again.
_LEASE = 10.0


class Registry:
    """A registry. Used on one event loop."""

    def __init__(self) -> None:
        self._nodes: dict[str, str] = {}  # the boot of each
        self._version = 0
        self._news = asyncio.Event()
        self._placing: tuple[str, float] | None = None

    async def announce(self, node: str, boot: str) -> None:
        """Note that a node is there, in this life of it."""
        if self._nodes.get(node) != boot:
            self._nodes[node] = boot
            self._tell()

    async def leave(self, node: str) -> None:
        """Forget a node, which won't come back by itself."""
        if self._nodes.pop(node, None) is not None:
            self._tell()

    async def nodes(self, version: int) -> tuple[int, dict[str, str]]:
        """Return the boot of each node, when they are others than at ``version``, or after 20 s."""
        if version == self._version:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WAIT):
                    await self._news.wait()
        return self._version, dict(self._nodes)

    async def place(self, gateway: str) -> bool:
        """Return whether ``gateway`` may place models for the next 10 s: one at a time may."""
        now = time.monotonic()
        if self._placing is None or self._placing[0] == gateway or self._placing[1] < now:
            self._placing = gateway, now + _LEASE
        return self._placing[0] == gateway

    def _tell(self) -> None:
        self._version += 1
        news, self._news = self._news, asyncio.Event()
        news.set()
