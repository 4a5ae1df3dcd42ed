"""Chunks of an answer (RFC 9112, 7.1) that go on as they came, without being parsed. Pure.

A streamed token comes as one chunk in one read, nearly always. Whether a read is one whole chunk
is told by its length alone: that says with what bytes it then begins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

CRLF: Final = b"\r\n"
#: The greatest length in bytes of a whole chunk, its size and line ends included. Longer chunks are
#: parsed. So are very short ones, which end a stream: they mustn't replace the last chunk that says
#: something.
LONGEST: Final = 4096
_SHORTEST: Final = 64


def _size_line(length: int) -> bytes:
    """Return what a whole chunk of ``length`` bytes begins with, as servers write it: hexadecimal
    digits in lower case, no zeros before them. Empty if it is to be parsed.
    """
    for digits in (2, 3):
        line = b"%x\r\n" % max(0, length - digits - 2 * len(CRLF))
        if length >= _SHORTEST and len(line) == digits + len(CRLF):
            return line
    return b""


_NEVER: Final = b"?"  # is equal to none of no bytes
_PLACES: Final = tuple(map(slice, range(6)))
_LINES: Final = tuple(map(_size_line, range(LONGEST)))
#: The first line of a chunk, by the length of the whole chunk.
SIZE_LINES: Final = tuple(line or _NEVER for line in _LINES)
SIZE_LINE_AT: Final = tuple(_PLACES[len(line)] for line in _LINES)


class ChunkForwarder:
    """A forwarder of whole chunks of an answer, as they came, into a client's transport.

    ``write`` is the transport's. ``keep`` gets the last two chunks before anything else comes, or
    with :meth:`flush`: a stream tells its usage at the end, or in the event before that.
    """

    __slots__ = ("before", "chunks", "keep", "last", "write")

    def __init__(self, write: Callable[[bytes], None], keep: Callable[[bytes], None]) -> None:
        self.write = write
        self.keep = keep
        self.chunks = 0  # that went through here
        self.before = self.last = b""

    def flush(self) -> None:
        """Hand the last chunks over to ``keep``."""
        if self.before:
            self.keep(self.before)
        if self.last:
            self.keep(self.last)
        self.before = self.last = b""
