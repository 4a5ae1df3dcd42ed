"""Heads of answers that were parsed before: a backend sends the same one nearly every time. Pure.

Only the length of the body differs. A head whose other bytes were parsed once, and came with a
Content-Length then too, means the same again, so neither it nor its body goes through the parser.
"""

from __future__ import annotations

from typing import Final

from gateway.bounded_cache import BoundedCache
from gateway.upstream.answer import ResponseHead

#: The usual spelling of the header. A head that spells it differently is parsed every time.
_LENGTH: Final = b"\r\nContent-Length: "
_LINE_END: Final = b"\r\n"
_HEAD_END: Final = b"\r\n\r\n"
LONGEST: Final = 4096  # bytes of a head
MOST_DIGITS: Final = 15
_NO_BODY: Final = (204, 304)  # whatever length they name (RFC 9112, 6.3)
_KEPT: Final = 64


class CachedHead:
    """A parsed head, but for the length of the body, whose digits stand in the middle."""

    __slots__ = ("after", "before", "headers", "keep_alive", "status")

    def __init__(self, head: ResponseHead, keep_alive: bool, before: bytes, after: bytes) -> None:
        self.status = head.status
        self.headers = head.headers
        self.keep_alive = keep_alive
        self.before = before
        self.after = after


class HeadCache:
    """The heads that one backend has sent."""

    __slots__ = ("_heads",)

    def __init__(self) -> None:
        #: Heads by their bytes, without the digits of the length.
        self._heads: BoundedCache[bytes, CachedHead] = BoundedCache(_KEPT)

    def __len__(self) -> int:
        return len(self._heads)

    def recognise(self, data: bytes) -> tuple[CachedHead, int, int] | None:
        """Return what the head at the beginning of ``data`` says, the length of the body, and where
        it begins; None if it isn't cached, or not all of it is here.
        """
        found = _split(data)
        if found is None:
            return None
        before, length, after, end = found
        cached = self._heads.get(before + after)
        return (cached, length, end) if cached is not None else None

    def remember(self, data: bytes, head: ResponseHead, *, keep_alive: bool) -> None:
        """Remember the head at the beginning of ``data``, which the parser read as ``head``."""
        found = _split(data)
        if found is None or found[1] != head.length or data[9:12] != b"%d" % head.status:
            return
        if head.status in _NO_BODY:
            return
        before, _, after, _ = found
        self._heads[before + after] = CachedHead(head, keep_alive, before, after)


def _split(data: bytes) -> tuple[bytes, int, bytes, int] | None:
    """Return the head around the digits of its length, that length, and where the body begins."""
    end = data.find(_HEAD_END, 0, LONGEST)
    start = data.find(_LENGTH, 0, end) + len(_LENGTH)
    if end < 0 or start < len(_LENGTH):
        return None
    line_end = data.find(_LINE_END, start)
    digits = data[start:line_end]
    if line_end > start + MOST_DIGITS or not digits.isdigit():
        return None
    end += len(_HEAD_END)
    return data[:start], int(digits), data[line_end:end], end
