"""How deep a JSON text is nested, told before anything parses it. Pure.

Parsers call themselves for each level, and what stops them differs: a RecursionError at about
1,000 levels in CPython 3.11, at some thousands or not at all in later ones, 1,024 in orjson. So
that the answer is the same everywhere, and no parser is ever near the end of its stack, what
nests deeper than :data:`MAX_DEPTH` is refused by us.
"""

from __future__ import annotations

import re
from itertools import accumulate

#: Levels of arrays and objects. Far more than a body of any API has, and few enough for code of
#: ours that calls itself for each level (CPython allows 1,000 calls).
MAX_DEPTH = 500

_PIECE = 64 * 1024  # bytes looked at in one go: so the copies below stay small
_UNMARKED = bytes(set(range(256)) - set(b'[]{}"'))
_QUOTED = re.compile(rb'"[^"]*"?')
#: An opening bracket as 1, a closing one as -1, in signed bytes.
_STEPS = bytes.maketrans(b"[{]}", b"\1\1\xff\xff")


def nests_deeper(text: bytes, limit: int = MAX_DEPTH) -> bool:
    """Whether arrays and objects in ``text``, JSON in UTF-8, stand more than ``limit`` deep.

    Of a text that is no JSON this is told as far as a parser would read it. It costs 2 to 10 ns a
    byte; texts of up to ``limit`` bytes cost nothing.
    """
    if len(text) <= limit:
        return False
    depth, start, within = 0, 0, False  # the last: whether a string goes on from the piece before
    while start < len(text):
        piece = text[start : start + _PIECE]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            piece = text[start : start + _PIECE + 1]  # an escape is not cut in two
        start += len(piece)
        marks = piece.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _UNMARKED)
        if within:
            marks = b'"' + marks
        within = bool(marks.count(b'"') % 2)
        steps = memoryview(_QUOTED.sub(b"", marks).translate(_STEPS)).cast("b")
        if depth + max(accumulate(steps), default=0) > limit:
            return True
        depth += sum(steps)
    return False
