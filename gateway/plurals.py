"""Counts in messages that people read: "1 request", "2 requests"."""

from __future__ import annotations


def counted(number: int, what: str, after: str = "") -> str:
    """Return ``number`` of ``what``, a noun with a regular plural, and what comes ``after`` it."""
    return f"{number:d} {what}{'' if number == 1 else 's'}{after}"
