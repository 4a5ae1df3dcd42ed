"""The log of a model of which there may be several copies: what each of them writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.backends.logring import LogRing


class Copy(Protocol):
    """One copy; its log goes with its process."""

    log: LogRing
    number: int

    @property
    def placed_on(self) -> str:
        """The machine that it runs on, or is about to."""


class CopiesLog:
    """The lines of all ``copies``, where there are several with the machine that each is from."""

    def __init__(self, copies: Callable[[], Sequence[Copy]]) -> None:
        self.ring = LogRing()
        self._copies = copies

    def show(self, log: LogRing) -> None:
        """Take what is written to the log of a copy from now on."""
        log.listen(lambda: self.ring.append(self._whose(log) + log.last))

    def _whose(self, log: LogRing) -> str:
        copies = self._copies()
        whose = next((copy for copy in copies if copy.log is log), None)
        if len(copies) < 2 or whose is None or not whose.placed_on:  # another finds it
            return ""
        alone = sum(copy.placed_on == whose.placed_on for copy in copies) == 1
        return f"{whose.placed_on}: " if alone else f"{whose.placed_on} ({whose.number + 1}): "
