"""The last lines that a llama-server wrote, and the viewers that follow them.

The pump that fills the ring must never wait for a viewer: a viewer that is too slow loses
its oldest lines and is told how many.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable

from gateway.path_secrets import without_our_keys
from gateway.plurals import counted

MAX_LINE = 4096
_MAX_BYTES = 4 * MAX_LINE  # a character has at most four in UTF-8


class LogRing:
    """At most ``capacity`` lines of at most :data:`MAX_LINE` characters, oldest dropped first."""

    def __init__(self, capacity: int = 1000) -> None:
        self._lines: deque[str] = deque(maxlen=capacity)
        self._partial = b""
        self._viewers: set[_Viewer] = set()
        self._listeners: set[Callable[[], None]] = set()
        #: Adds to a line what the gateway knows of it.
        self.mark: Callable[[str], str] | None = None
        self.total = 0  # lines so far, those that have gone again among them
        self.received = 0  # bytes so far: a row of dots without a line end is progress too

    def feed(self, data: bytes) -> None:
        """Take raw output as it comes, in pieces that end anywhere."""
        self.received += len(data)
        *lines, rest = (self._partial + data).split(b"\n")
        self._partial = rest[:_MAX_BYTES]
        mark = self.mark
        for line in lines:
            text = line.decode("utf-8", "replace").rstrip("\r")
            self.append(text if mark is None else mark(text))

    def append(self, line: str) -> None:
        """Add one line, for everyone who follows too."""
        line = without_our_keys(line[:MAX_LINE])
        self._lines.append(line)
        self.total += 1
        for viewer in self._viewers:
            viewer.push(line)
        for listener in tuple(self._listeners):
            listener()

    def close_line(self) -> None:
        """End the last line, if it lacks a line end: the writer is gone."""
        if self._partial:
            rest, self._partial = self._partial, b""
            self.append(rest.decode("utf-8", "replace"))

    def tail(self, count: int | None = None) -> list[str]:
        """Return the newest ``count`` lines (all without it), oldest first."""
        lines = list(self._lines)
        return lines if count is None else lines[-count:] if count else []

    @property
    def last(self) -> str:
        """The newest line; empty if there is none."""
        return self._lines[-1] if self._lines else ""

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` on every line; returns the function that ends it."""
        self._listeners.add(callback)
        return lambda: self._listeners.discard(callback)

    @property
    def followers(self) -> int:
        """The number of viewers that follow now."""
        return len(self._viewers)

    async def follow(
        self, *, backlog: int = 100, capacity: int = 1000
    ) -> AsyncGenerator[str, None]:
        """Yield the last ``backlog`` lines, then each new one, until the caller stops."""
        viewer = _Viewer(capacity)
        self._viewers.add(viewer)
        try:
            for line in self.tail(backlog):
                yield line
            while True:
                yield await viewer.pop()
        finally:
            self._viewers.discard(viewer)


class _Viewer:
    """A bounded queue between the pump and one follower."""

    def __init__(self, capacity: int) -> None:
        self._queue: deque[str] = deque(maxlen=capacity)
        self._dropped = 0
        self._wake = asyncio.Event()

    def push(self, line: str) -> None:
        if len(self._queue) == self._queue.maxlen:
            self._dropped += 1
        self._queue.append(line)
        self._wake.set()

    async def pop(self) -> str:
        while not self._queue:
            self._wake.clear()
            await self._wake.wait()
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            return f"... {counted(dropped, 'line')} left out: the reader is too slow ..."
        return self._queue.popleft()
