"""The newest lines of the gateway's own log, kept for reading them over HTTP."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice
from typing import Final, NamedTuple

#: How many lines are kept, and roughly how many bytes; each line has an overhead.
MOST: Final = 10_000
_SIZE: Final = 2 * 2**20
_OVERHEAD: Final = 100
#: The most characters of a line; the rest is cut off.
_LONGEST: Final = 4096


class LoggedLine(NamedTuple):
    """A line of the log. ``number`` counts all lines from 1; ``level`` is that of
    :mod:`logging`.
    """

    number: int
    level: int
    text: str


class LogTail:
    """The last :data:`MOST` lines, the oldest dropped first. For many threads."""

    def __init__(self, *, most: int = MOST, size: int = _SIZE) -> None:
        #: The level and text of each line; the number of the last one is the total.
        self._lines: deque[tuple[int, str]] = deque()
        self._most = most
        self._limit = size
        self._size = 0
        self._total = 0
        self._lock = threading.Lock()
        self._listeners: set[Callable[[], None]] = set()

    def add(self, told: Iterable[tuple[int, str]]) -> None:
        """Keep what was logged: its level and its text, which may have several lines."""
        with self._lock:
            for level, text in told:
                # Of requests, every line is a short one of its own: that is to cost them little.
                if text.find("\n") == len(text) - 1 < _LONGEST:
                    self._keep(level, text[:-1].rstrip("\r"))
                    continue
                for line in text.rstrip("\n").split("\n"):
                    self._keep(level, line[:_LONGEST].rstrip("\r"))
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()

    def _keep(self, level: int, text: str) -> None:
        lines = self._lines
        lines.append((level, text))
        self._total += 1
        self._size += len(text) + _OVERHEAD
        while self._size > self._limit or len(lines) > self._most:
            self._size -= len(lines.popleft()[1]) + _OVERHEAD

    def _backwards(self) -> Iterator[LoggedLine]:
        for number, (level, text) in zip(count(self._total, -1), reversed(self._lines)):
            yield LoggedLine(number, level, text)

    @property
    def total(self) -> int:
        """The number of lines so far."""
        return self._total

    def newest(self, most: int, *, level: int = 0) -> list[LoggedLine]:
        """Return the last ``most`` lines of ``level`` or above, the oldest of them first."""
        with self._lock:
            found = (line for line in self._backwards() if line.level >= level)
            lines = list(islice(found, most))
        lines.reverse()
        return lines

    def after(self, number: int, *, level: int = 0) -> tuple[list[LoggedLine], int]:
        """Return the lines after number ``number``, and how many of those are already gone."""
        with self._lock:
            new = list(islice(self._backwards(), max(self._total - number, 0)))
            gone = max(self._total - number, 0) - len(new)
        new.reverse()
        return [line for line in new if line.level >= level], gone

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` after new lines, in the thread that adds them; return how to
        end that.
        """
        with self._lock:
            self._listeners.add(callback)

        def stop() -> None:
            with self._lock:
                self._listeners.discard(callback)

        return stop
