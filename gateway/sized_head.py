"""Knows a head by its bytes again, whatever length it names for its body (RFC 9112, 6.2)."""

from __future__ import annotations


def size_in(data: bytes, before: bytes, after: bytes, most_digits: int) -> tuple[int, int] | None:
    """The length of the body, and where that begins, if ``data`` begins with such a head.

    ``before`` and ``after`` are its bytes around the digits of the length; ``after`` begins with a
    line end. There are at most ``most_digits``.
    """
    if not data.startswith(before):
        return None
    start = len(before)
    end = data.find(b"\r", start, start + most_digits + 1)
    digits = data[start:end]
    if end < 0 or not digits.isdigit() or not data.startswith(after, end):
        return None
    return int(digits), end + len(after)
