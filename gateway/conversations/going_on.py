"""In which slot a request goes on, seen by its first bytes. Pure.

That is the place that :mod:`gateway.conversations.place` finds as well, by chains: most requests go
on with all that is in a slot, and then it costs less to see it here. Wherever another slot might be
better, this says nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, Generic, Protocol, TypeVar

#: Begins no request, and every request: the bounds of a slot of which nothing is of use to any, and
#: of one of which nobody knows to which it would be.
NOTHING: Final = b"\0"
ANYTHING: Final = b""
#: Comes behind all others in their order, and begins no request: no JSON has such a byte.
_LAST: Final = b"\xff"


class Bounded(Protocol):
    """A slot. ``bound``: what begins with all that is in it, or will be when it is free: the bytes
    of a request, or of its beginning.
    """

    bound: bytes


BoundedT = TypeVar("BoundedT", bound=Bounded)


class Bounds(Generic[BoundedT]):
    """Those of ``slots``, in order.

    ``apart``: none begins another, but those that are the same. Then a bound may get longer without
    being put in order anew: what begins with it begins with no other, be they longer or not. So
    :meth:`changed` is to be called for every other change, and for this one where some are
    ``alike``.
    """

    def __init__(self, slots: Sequence[BoundedT]) -> None:
        self._slots = slots
        #: In order, as they were when that was made; and whose each is. What is on the way of
        #: every request looks at these itself, see :meth:`find`.
        self.ordered: list[bytes] = [_LAST]
        self.whose: list[BoundedT | None] = [None]
        self.apart = self.alike = False

    def changed(self) -> None:
        """Some bound is another one, and not only longer; or there is a slot more."""
        self.apart = False

    def _put_in_order(self) -> None:
        whose = sorted(self._slots, key=_bound_of)
        ordered = [slot.bound for slot in whose]
        begun = [
            one for one in pairwise(ordered) if one[1].startswith(one[0]) and one[0] != NOTHING
        ]
        self.alike = any(bound == later for bound, later in begun)
        self.apart = ordered[:1] != [ANYTHING] and all(bound == later for bound, later in begun)
        self.ordered, self.whose = [*ordered, _LAST], [*whose, None]

    def find(self, sent: bytes) -> BoundedT | None:
        """Return the slot whose bound is the longest beginning of what is ``sent``, if there is
        one, and none goes on from there: then no other slot has more of it.
        """
        if self.apart:
            slot = self.whose[bisect_right(self.ordered, sent) - 1]
            return slot if slot is not None and sent.startswith(slot.bound) else None
        self._put_in_order()
        # What goes on from a bound comes behind it in the order, before all others. So if there is
        # anything between it and what is sent, or next to that, there it is.
        ordered = self.ordered
        after = bisect_right(ordered, sent)
        begin = ordered[after - 1]
        if sent.startswith(begin) and ordered[0] and not ordered[after].startswith(begin):
            return self.whose[after - 1]
        return None

    def all_of(self, sent: bytes) -> Iterator[BoundedT]:
        """Yield those whose bounds are the longest beginnings of what is ``sent``, after a look for
        the first of them with :meth:`find`.
        """
        at = bisect_right(self.ordered, sent) - 1
        while at >= 0 and sent.startswith(self.ordered[at]):
            if (slot := self.whose[at]) is not None:
                yield slot
            at -= 1

    def with_all_of(self, text: bytes) -> BoundedT | None:
        """Return the slot whose bound begins with ``text``, if only one does, and with more."""
        self._put_in_order()
        ordered = self.ordered
        at = bisect_right(ordered, text)
        if not ordered[0] or ordered[at - 1] == text:
            return None
        following = [one for one in ordered[at : at + 2] if one.startswith(text)]
        return self.whose[at] if len(following) == 1 else None


def _bound_of(slot: Bounded) -> bytes:
    return slot.bound
