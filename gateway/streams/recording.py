"""A recording of one stream of events, as it went out to its client."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Final

from gateway.errors import GatewayError
from gateway.streams.kinds import EVENTS

#: What an entry of a list and the head of a bytes object take, on a machine of 64 bits.
_PER_PIECE: Final = 48
_BLANK: Final = b"\n\n"
_ID: Final = re.compile(rb"^id:.*\n|\nid:.*", re.MULTILINE)

#: Ends the work on an answer with an error.
EndWork = Callable[[GatewayError], None]
#: Makes the event by which a stream tells an error.
LastEvent = Callable[[GatewayError], bytes]


class Recording:
    """What has gone out of a stream, kept for those who read it again.

    ``id``: the name by which its readers ask for it; ``key_id``: whose it is. ``last_event`` makes
    the event that tells an error. ``more(self)`` is called when it needs more memory than it has,
    and raises :attr:`allowed`, or gives it up.
    """

    __slots__ = (
        "_news",
        "allowed",
        "began",
        "broken",
        "chunked",
        "end_work",
        "ended",
        "finished",
        "give_up_work",
        "id",
        "key_id",
        "kind",
        "last_event",
        "leave_client",
        "lost",
        "more",
        "pieces",
        "readers",
        "size",
    )

    def __init__(
        self, id: str, key_id: str, last_event: LastEvent, more: Callable[[Recording], None]
    ) -> None:
        self.id = id
        self.key_id = key_id
        self.last_event = last_event
        #: Its media type: a stream of events, or of lines of JSON.
        self.kind = EVENTS
        self.more = more
        self.pieces: list[bytes] = []
        #: Whether each piece is a chunk (RFC 9112, 7.1), with its size before it.
        self.chunked = False
        #: Bytes of memory that it takes, and may take.
        self.size = 0
        self.allowed = 0
        #: How many read it again at the moment.
        self.readers = 0
        #: Whether its stream has begun: until then its request waits, or was refused.
        self.began = False
        self.ended = False
        #: Whether it came to its end; and whether it broke off, and its last event says why.
        #: Neither if its client left, and nobody worked on it any longer.
        self.finished = self.broken = False
        #: Whether there was no memory for it.
        self.lost = False
        #: Ends the work on its answer, while that is under way.
        self.end_work: EndWork | None = None
        #: Of an answer that lasts: closes the connection of its first client.
        self.leave_client: Callable[[], None] | None = None
        #: Of an answer whose client has gone: ends the work on it, as nobody is there to be told.
        self.give_up_work: Callable[[], object] | None = None
        self._news: asyncio.Event | None = None

    def add(self, piece: bytes) -> None:
        """Record a piece that goes out now."""
        self.pieces.append(piece)
        self.size += len(piece) + _PER_PIECE
        if self.size > self.allowed:
            if self.lost:
                self.give_up()
            else:
                self.more(self)
        if self._news is not None:
            self._tell()

    def end(self) -> None:
        """Note that nothing more comes."""
        self.ended = True
        self.end_work = self.leave_client = self.give_up_work = None
        self._tell()

    def give_up(self) -> None:
        """Forget all of it: there is no memory for it."""
        self.lost = True
        self.pieces = []
        self.size = 0
        self._tell()

    async def news(self) -> None:
        """Return when something is added, or it ends."""
        if self._news is None:
            self._news = asyncio.Event()
        await self._news.wait()

    def _tell(self) -> None:
        news, self._news = self._news, None
        if news is not None:
            news.set()


class Reader:
    """A reader of the events of a recording that are behind the event number ``after``.

    Events are counted from 1; comments, which keep a stream alive, are none. Of a stream of lines
    (NDJSON) each line is one.
    """

    def __init__(self, recording: Recording, after: int) -> None:
        self._recording = recording
        #: The number of the last event that its client has seen.
        self.after = after
        self._next = 0
        self._half = b""
        #: The number of the last event that was read.
        self.number = 0

    def read(self, most: int) -> bytes:
        """Return what has come in up to ``most`` further pieces: whole events, each with its
        number as its ``id`` (WHATWG HTML, 9.2.6), which lines of JSON don't have.
        """
        recording = self._recording
        pieces = recording.pieces[self._next : self._next + most]
        self._next += len(pieces)
        if recording.chunked:
            pieces = [piece[piece.index(b"\n") + 1 : -2] for piece in pieces]
        come = b"".join((self._half, *pieces))
        if b"\r" in come:  # as some servers end lines; half of an end stays for the next time
            come = come.replace(b"\r\n", b"\n")
        if recording.kind != EVENTS:
            *whole, self._half = come.split(b"\n")
            return b"".join(self._lines(whole))
        *whole, self._half = come.split(_BLANK)
        return b"".join(self._numbered(whole))

    @property
    def at_end(self) -> bool:
        """Whether everything that has come so far was read."""
        return self._next >= len(self._recording.pieces)

    def _lines(self, lines: list[bytes]) -> Iterator[bytes]:
        for line in filter(None, lines):
            self.number += 1
            if self.number > self.after:
                yield line + b"\n"

    def _numbered(self, events: list[bytes]) -> Iterator[bytes]:
        for event in events:
            if not (event.startswith((b"data", b"event")) or b"\ndata" in event):
                continue
            self.number += 1
            if self.number > self.after:
                if event.startswith(b"id:") or b"\nid:" in event:  # of the server that sent it
                    event = _ID.sub(b"", event)
                yield b"id: %d\n%b\n\n" % (self.number, event)
