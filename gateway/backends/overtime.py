"""Measures for how long a llama-server has worked without anything to do. Pure.

Every second in which it works is one, and is made good by what comes of it: whatever ends or
begins clears all of them, each token as many as it may take. So a slow machine that gets on is
never late, however long it takes, while a request that makes llama-server choose one token for
minutes is. What it waits for (a processor that others use) isn't work.
"""

from __future__ import annotations

from gateway.backends.slots import Slots
from gateway.backends.speed import Speed


class Overtime:
    """A count of the ``seconds`` that one child has worked without a result to show for it."""

    def __init__(self, speed: Speed) -> None:
        self._speed = speed
        self._slots: Slots | None = None
        self._steps = 0
        self.seconds = 0.0

    def note(self, worked: float, slots: Slots | None, steps: int, *, wanted: bool) -> None:
        """Add ``worked`` seconds of work since the last call, unless there is a result to show for
        it.

        ``slots``: their present state, if the child tells it. ``steps``: a counter of other signs
        of progress. Tokens for a client that has left (not ``wanted``) count as no result.
        """
        before, self._slots = self._slots, slots or self._slots
        if steps != self._steps or (slots is not None and self._turned(before, slots)):
            self._steps = steps
            self.seconds = 0.0
            return
        self.seconds += worked
        if wanted and slots is not None and before is not None and slots.state != before.state:
            read = (slots.read or 0) - (before.read or 0)
            written = (slots.written or 0) - (before.written or 0)
            earned = self._speed.seconds(max(read, 0), max(written, 0))
            self.seconds = max(self.seconds - earned, 0.0)

    def _turned(self, before: Slots | None, slots: Slots) -> bool:
        """Return whether requests have come or gone, or it goes on in a way that has no number."""
        if before is None or slots.tasks != before.tasks:
            return True
        countable = slots.read is not None and slots.written is not None
        return slots.state != before.state and not countable
