"""The numbered events of a node, and who waits for the next one. For one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque

from gateway.cluster.told import Batch, Event, Logged

#: How many events are kept for gateways that were away, and how many go out at a time.
_KEPT = 5000
_AT_A_TIME = 500
#: Seconds for which lines of logs are gathered before they are told.
_GATHER = 0.05


class Journal:
    """A journal of the events since ``boot``, which tells one life of a node from the next."""

    def __init__(self) -> None:
        self.boot = secrets.token_hex(8)
        self.last = 0
        self._events: deque[Event] = deque(maxlen=_KEPT)
        self._news = asyncio.Event()  # set, and replaced, at every event
        self._lines: dict[str, list[str]] = {}

    def add(self, event: Event) -> None:
        """Tell everybody; lines that were logged before it come first."""
        self._flush()
        self._append(event)

    def log(self, server: str, line: str) -> None:
        """Tell a line of a log, within 50 ms."""
        if not self._lines:
            asyncio.get_running_loop().call_later(_GATHER, self._flush)
        self._lines.setdefault(server, []).append(line)

    def _flush(self) -> None:
        lines, self._lines = self._lines, {}
        for server, logged in lines.items():
            self._append(Logged(server, tuple(logged)))

    def _append(self, event: Event) -> None:
        self._events.append(event)
        self.last += 1
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def after(self, boot: str, number: int, wait: float) -> Batch:
        """Return what came after event ``number``, as soon as there is anything, or nothing after
        ``wait`` seconds.
        """
        if boot != self.boot or number > self.last or self.last - number > len(self._events):
            return Batch(self.boot, self.last, (), gap=True)
        if number == self.last:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._news.wait()
        if self.last - number > len(self._events):
            return Batch(self.boot, self.last, (), gap=True)
        first = len(self._events) - (self.last - number)
        some = tuple(self._events[i] for i in range(first, len(self._events))[:_AT_A_TIME])
        return Batch(self.boot, number + len(some), some)
