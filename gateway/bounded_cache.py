"""A cache with a bound on its entries."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """A cache of at most ``bound`` entries, of which the oldest goes first. For any number of
    threads.

    Looking something up doesn't make it younger: that would cost every hit, and what is asked for
    all the time is back at once. Not for what must not be forgotten.
    """

    __slots__ = ("_entries", "_keys", "_lock", "bound", "get")

    #: Returns the value of a key, or None. It is the dictionary's own method, to save a call.
    get: Callable[[K], V | None]

    def __init__(self, bound: int) -> None:
        if bound < 1:
            raise ValueError("a cache holds at least one entry")
        self.bound = bound
        self._entries: dict[K, V] = {}
        # From the oldest on. The dictionary has that order too, but no quick way to its first
        # entry: it would look past all that were there before it.
        self._keys: deque[K] = deque()
        self.get = self._entries.get
        self._lock = threading.Lock()

    def __setitem__(self, key: K, value: V) -> None:
        entries = self._entries
        with self._lock:
            if key not in entries:
                if len(entries) >= self.bound:
                    del entries[self._keys.popleft()]
                self._keys.append(key)
            entries[key] = value

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._keys.clear()
