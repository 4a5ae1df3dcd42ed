"""In which slot a request goes on, seen by its first bytes. Pure.

That is the place that :mod:`gateway.conversations.place` finds as well, by chains: most requests go
on with all that is in a slot, and then it costs less to see it here. Wherever another slot might be
better, this says nothing.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from typing import Final

#: Begins no request, and every request: the bounds of a slot of which nothing is of use to any, and
#: of one of which nobody knows to which it would be.
NOTHING: Final = b"\0"
ANYTHING: Final = b""


class Bounds:
    """Of each slot what begins with all that is in it, or will be when it is free: the bytes of a
    request, or of its beginning.
    """

    def __init__(self) -> None:
        self._of: list[bytes] = []
        self._ordered: list[bytes] = []

    def insert(self, place: int) -> None:
        """Have one more, at ``place``, of a slot in which nothing was yet."""
        self._of.insert(place, NOTHING)
        insort(self._ordered, NOTHING)

    def change(self, place: int, bound: bytes) -> None:
        """Have another one at ``place``."""
        of, ordered = self._of, self._ordered
        del ordered[ordered.index(of[place])]
        insort(ordered, bound)
        of[place] = bound

    def place_of(self, sent: bytes) -> int | None:
        """Return whose bound is the longest beginning of what is ``sent``, if there is one, and
        none goes on from there: then no other slot has more of it. There has to be a slot.
        """
        # What goes on from a bound comes behind it in the order, before all others. So if there is
        # anything between it and what is sent, or next to that, there it is.
        ordered = self._ordered
        after = bisect_right(ordered, sent)
        begin = ordered[after - 1]
        if not ordered[0] or not sent.startswith(begin):
            return None
        if after < len(ordered) and ordered[after].startswith(begin):
            return None
        return self._of.index(begin)

    def place_with(self, text: bytes) -> int | None:
        """Return whose bound begins with ``text``, if only one does."""
        ordered = self._ordered
        at = bisect_right(ordered, text)
        if not ordered[0] or ordered[at - 1] == text:
            return None
        following = [bound for bound in ordered[at : at + 2] if bound.startswith(text)]
        return self._of.index(following[0]) if len(following) == 1 else None
