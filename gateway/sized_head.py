"""Recognising a head by its bytes, whatever length it gives for its body (RFC 9112, 6.2)."""

from __future__ import annotations


def size_in(data: bytes, before: bytes, after: bytes, most_digits: int) -> tuple[int, int] | None:
    """Return the body's length, and where the body begins, if ``data`` begins with such a head.

    ``before`` and ``after`` are the head's bytes around the digits of the length; ``after`` begins
    with a line end. There are at most ``most_digits``.
    """
    if not data.startswith(before):
        return None
    start = len(before)
    end = data.find(b"\r", start, start + most_digits + 1)
    digits = data[start:end]
    if end < 0 or not digits.isdigit() or not data.startswith(after, end):
        return None
    return int(digits), end + len(after)
