"""Measures the depth and the number of values of a JSON text before it is parsed. Pure.

Parsers call themselves for each level, and their limits differ: a RecursionError at about 1,000
levels in CPython 3.11, at some thousands or not at all in later ones, 1,024 in orjson. So that the
answer is the same everywhere, and no parser is ever near the end of its stack, we refuse what is
nested deeper than :data:`MAX_DEPTH`.

A value may take two bytes of a text, and sixty or more of memory once it is parsed. So a text with
more values than are allowed is not parsed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from operator import add

#: The most levels of arrays and objects: far more than a body of any API has, and few enough for
#: recursive code (CPython allows 1,000 calls).
MAX_DEPTH = 500

PIECE = 64 * 1024  # bytes looked at in one go: so the copies below stay small
_UNMARKED = bytes(set(range(256)) - set(b'[]{},"'))
_BITS = bytes.maketrans(b"[{]}", b"1100")


def _climb(byte: int) -> tuple[int, int]:
    """Return by how much eight brackets change the depth, and how far they raise it in between."""
    levels = list(accumulate(1 if bit == "1" else -1 for bit in f"{byte:08b}"))
    return levels[-1], max(0, *levels)


#: The result of :func:`_climb` for each byte; changes as signed bytes.
_CHANGES = bytes(_climb(byte)[0] % 256 for byte in range(256))
_RISES = bytes(_climb(byte)[1] for byte in range(256))


def nests_deeper(text: bytes, limit: int = MAX_DEPTH) -> bool:
    """Return whether arrays and objects in ``text``, JSON in UTF-8, are nested deeper than
    ``limit``.

    A text that is no JSON is judged as far as a parser would read it. It costs a few ns a byte, at
    most 30; texts of up to ``limit`` bytes cost nothing.
    """
    if len(text) <= limit:
        return False
    depth = 0
    for marks in _outside_texts(text):
        bits = marks.translate(_BITS, b",")
        if not bits:
            continue
        missing = -len(bits) % 8
        eights = int(bits + b"0" * missing, 2).to_bytes((len(bits) + 7) // 8, "big")
        changes = memoryview(eights.translate(_CHANGES)).cast("b")
        levels = list(accumulate(changes, initial=depth))
        if max(map(add, levels, eights.translate(_RISES))) > limit:
            return True
        depth = levels[-1] + missing
    return False


def holds_more(text: bytes, limit: int) -> bool:
    """Return whether there are more than ``limit`` values in ``text``, JSON in UTF-8.

    Values in lists and objects are counted, and empty ones as if they held one. It costs a few ns
    per byte, and hardly anything if the text has fewer commas.
    """
    if len(text) <= limit or sum(map(text.count, (b",", b"[", b"{"))) <= limit:
        return False
    found = 0
    for marks in _outside_texts(text):
        found += marks.count(b",") + marks.count(b"[") + marks.count(b"{")
        if found > limit:
            return True
    return False


def _outside_texts(text: bytes) -> Iterator[bytes]:
    """Yield the brackets, braces and commas outside of strings, piece by piece."""
    start, within = 0, False  # the last: whether a text goes on from the piece before
    while start < len(text):
        piece = text[start : start + PIECE]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            piece = text[start : start + PIECE + 1]  # an escape is not cut in two
        start += len(piece)
        marks = piece.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _UNMARKED)
        if within:
            marks = b'"' + marks
        parts = marks.split(b'"')  # outside and inside of texts, in turn
        within = len(parts) % 2 == 0
        yield b"".join(parts[::2])
