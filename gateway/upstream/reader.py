"""Reads answers of a backend: bytes in, callbacks of a sink and of a receiver out. No I/O.

HTTP/1.1 answers (RFC 9112) are parsed by llhttp through httptools as they arrive. A streamed token,
which comes as one chunk in one read, isn't parsed at all where the sink wants chunks as they are
(:mod:`gateway.upstream.chunks`): it costs one look at its length. Nor is an answer whose head the
backend has sent before (:mod:`gateway.upstream.head_cache`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, NoReturn, Protocol, TypeVar

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade
from httptools import HttpResponseParser as _Parser

from gateway.sized_head import size_in
from gateway.upstream.answer import ResponseHead, ResponseSink
from gateway.upstream.chunks import CRLF, LONGEST, SIZE_LINE_AT, SIZE_LINES, ChunkForwarder
from gateway.upstream.errors import ProtocolError, UpstreamError
from gateway.upstream.head_cache import MOST_DIGITS, CachedHead, HeadCache

MAX_HEAD: Final = 64 * 1024  # bytes of head, or of anything else that is not body, in one piece
_ENDING: Final = slice(-2, None)
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


class Receiver(Protocol):
    """A receiver of one answer, which is told how that ends."""

    answered: bool

    def answer_began(self) -> None:
        """The first byte of the answer is here, of which there was none: ``answered`` from now."""

    def completed(self, *, reusable: bool) -> None:
        """The answer is complete; ``reusable``: the connection, as far as the answer goes."""

    def failed(self, error: UpstreamError) -> None:
        """The answer is no good."""

    def sink_raised(self, error: Exception) -> None:
        """The sink raised ``error`` from ``on_head`` or ``on_body``."""

    def lost(self, reason: str) -> None:
        """The bytes ended before the answer did."""


R = TypeVar("R", bound=Receiver)


def _ignore(data: bytes) -> None:
    """Take the place of ``on_body`` when nobody wants the rest."""


class AnswerReader(Generic[R]):
    """A reader of one answer after another of one connection, each for its receiver.

    ``name`` is what errors call the backend; ``unasked`` is called for what comes while nobody
    waits for an answer. The methods called ``on_...`` are httptools' callbacks. They run inside
    ``_parse``, so none of them ends an answer: ``feed`` does, after the parser returned.
    """

    __slots__ = (
        "_between_chunks",
        "_body_taker",
        "_bodyless",
        "_cached_head",
        "_chunk_forwarder",
        "_complete",
        "_forwarder",
        "_head",
        "_headers",
        "_heads",
        "_informational",
        "_keep_alive",
        "_name",
        "_parse",
        "_parser",
        "_pieces",
        "_quiet",
        "_remaining",
        "_sink",
        "_sink_error",
        "_unasked",
        "_until_close",
        "_untouched",
        "on_body",
        "receiver",
    )

    def __init__(self, name: str, heads: HeadCache, unasked: Callable[[], None]) -> None:
        self._name = name
        self._heads = heads
        self._unasked = unasked
        self.receiver: R | None = None
        #: The pieces of a body in one read. The parser appends to the list directly.
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append
        self._parser: Any = _Parser(self)
        self._parse: Any = self._parser.feed_data
        self._complete = False
        #: The head of the last answer, most likely that of the next one as well.
        self._cached_head: CachedHead | None = None
        #: Gets the next read if that is a whole chunk; set only while the parser is between two
        #: chunks.
        self._forwarder: ChunkForwarder | None = None

    def expect(self, receiver: R, sink: ResponseSink, bodyless: bool) -> None:
        """Get ready for the answer to the request about to be written.

        ``bodyless``: the answer ends with its head (HEAD), whatever length it names.
        """
        self.receiver = receiver
        self._sink: ResponseSink | None = sink
        self._body_taker: Any = sink.on_body
        self._bodyless = bodyless
        self._headers: list[tuple[bytes, bytes]] | None = []
        self._quiet = 0
        self._complete = False
        self._keep_alive = True  # until something says otherwise
        self._informational = self._until_close = False
        self._head: ResponseHead | None = None
        self._untouched = True  # nothing of the answer is here
        self._remaining = 0  # bytes of a body that the parser doesn't see
        self._between_chunks = False
        self._chunk_forwarder: ChunkForwarder | None = None
        self._sink_error: Exception | None = None

    def release(self) -> None:
        """The answer is over, or given up: no callback reaches its sink from here on."""
        self.receiver = self._sink = None
        self._body_taker = _ignore
        self._chunk_forwarder = self._forwarder = None

    def close(self) -> None:
        """Release the parser: nothing more comes."""
        self._parser = self._parse = self._unasked = None  # type: ignore[assignment]  # they point back

    def pass_chunks(self, forwarder: ChunkForwarder) -> None:
        """Write whole chunks to ``forwarder``, not to the sink: see ``Exchange``."""
        self._chunk_forwarder = forwarder

    @property
    def head_seen(self) -> bool:
        """Whether the sink has been given a head."""
        return self._headers is None

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        forwarder = self._forwarder
        if forwarder is not None:
            # The parser may miss it: after a whole chunk it is in the same state as before.
            length = len(data)
            if (
                length < LONGEST
                and data[SIZE_LINE_AT[length]] == SIZE_LINES[length]
                and data[_ENDING] == CRLF
            ):
                forwarder.before, forwarder.last = forwarder.last, data
                forwarder.chunks += 1
                write = forwarder.write  # as a method call it would be looked up in the class first
                try:
                    write(data)
                except RuntimeError:
                    return  # closed: who relays is about to hear of it
                return
            forwarder.flush()
            self._forwarder = None
        receiver = self.receiver
        if receiver is None:
            # Bytes nobody asked for would be taken as the answer to the next request.
            self._unasked()
            return
        if not receiver.answered:
            receiver.answer_began()
        if self._remaining:
            self._take_body(receiver, data)
            return
        untouched = self._untouched
        if untouched:
            self._untouched = False
            if type(data) is bytes and not self._bodyless and self._take_cached(receiver, data):
                return
        self._quiet += len(data)
        try:
            self._parse(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if not self._complete:
                self._deliver(receiver)
                self._give_up(receiver, error)
                return
            self._keep_alive = False  # more than the answer came: not a connection to trust
            untouched = False  # and its head may well come again without that
        if untouched and self._head is not None and not self._bodyless and type(data) is bytes:
            keep_alive = self._keep_alive if self._complete else self._parser.should_keep_alive()
            self._heads.remember(data, self._head, keep_alive=keep_alive)
        if self._pieces and not self._deliver(receiver):
            return
        if self._complete:
            receiver.completed(reusable=self._keep_alive)
        elif self._quiet > MAX_HEAD:
            what = "trailer or chunk header" if self.head_seen else "head"
            receiver.failed(ProtocolError(f"{self._name} sent a {what} of over {MAX_HEAD} bytes"))
        elif self._between_chunks and data[_ENDING] == CRLF:
            self._forwarder = self._chunk_forwarder

    def feed_eof(self) -> None:
        """The backend sends no more."""
        receiver = self.receiver
        if receiver is None:
            self._unasked()
        elif self._until_close and not self._complete:
            receiver.completed(reusable=False)
        else:
            receiver.lost("the connection was closed")

    def _take_cached(self, receiver: R, data: bytes) -> bool:
        """Take an answer whose head is cached; the parser will see nothing of it."""
        cached = self._cached_head
        found = (
            size_in(data, cached.before, cached.after, MOST_DIGITS) if cached is not None else None
        )
        if found is not None and cached is not None:
            length, start = found
        else:
            recognised = self._heads.recognise(data)
            if recognised is None:
                return False
            cached, length, start = recognised
            self._cached_head = cached
        if len(data) - start > length:
            return False
        self._headers = None
        self._keep_alive = cached.keep_alive
        self._remaining = length
        sink = self._sink
        assert sink is not None
        try:
            sink.on_head(ResponseHead(cached.status, cached.headers, length))
        except Exception as error:
            receiver.sink_raised(error)
            return True
        if len(data) > start or not length:
            self._take_body(receiver, data[start:])
        return True

    def _take_body(self, receiver: R, data: bytes) -> None:
        """Take a read of a body with a length, behind a known head."""
        remaining = self._remaining = self._remaining - len(data)
        if remaining < 0:
            data = data[:remaining]
            self._keep_alive = False  # more than the answer came: not a connection to trust
        if data:
            try:
                self._body_taker(data)
            except Exception as error:
                receiver.sink_raised(error)
                return
        if remaining <= 0 and self.receiver is receiver:
            self._complete = True
            receiver.completed(reusable=self._keep_alive)

    def _deliver(self, receiver: R) -> bool:
        """Give the sink what a read brought of the body; whether it took it."""
        pieces = self._pieces
        if not pieces:
            return True
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._quiet = 0
        try:
            self._body_taker(data)
        except Exception as error:
            receiver.sink_raised(error)
            return False
        return True

    # --- parser callbacks ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            raise ProtocolError("more than one answer")  # seen and dropped by feed

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headers is not None:  # what comes after the head are trailers: dropped
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        status: int = parser.get_status_code()
        if status < 200:
            if status < 100 or status == 101:
                self._refuse(f"answered with status {status}")
            if any(name.lower() in _FRAMING for name, _ in self._headers or ()):
                self._refuse(f"sent a status {status} with a body")  # llhttp would deliver it
            self._informational = True
            return
        headers = self._headers
        sink = self._sink
        if headers is None or sink is None:
            return  # aborted
        if self._quiet > MAX_HEAD and sum(len(n) + len(v) for n, v in headers) > MAX_HEAD:
            self._refuse(f"sent a head of over {MAX_HEAD} bytes")
        length: int | None = None
        length_at = -1
        codings = 0
        for index, (name, value) in enumerate(headers):
            # llhttp itself refuses two lengths, one that is no number, and one beside a coding.
            size = len(name)
            if size == 14:
                if name.lower() == b"content-length":
                    length, length_at = int(value), index
            elif size == 17 and name.lower() == b"transfer-encoding":
                codings += 1
                if codings > 1 or value.strip().lower() != b"chunked":
                    self._refuse("used a transfer coding that is not plain chunked")
        # How the body ends (RFC 9112, 6.3), in the order in which llhttp decides it.
        if status == 204 or status == 304 or self._bodyless:
            length = 0
        elif length is None and not codings:
            self._until_close = True
        if (codings or not parser.should_keep_alive()) and (
            version := parser.get_http_version()  # not for free, so not for every answer
        ) != "1.1":
            if version != "1.0":
                self._refuse(f"answered in HTTP/{version}")
            self._keep_alive = False
        if length_at >= 0:
            del headers[length_at]
        self._headers = None
        self._quiet = 0
        if self._bodyless:
            # httptools can't tell llhttp to expect no body, so its state is lost with this.
            self._complete = True
            self._keep_alive = False
            self._body_taker = _ignore
        try:
            self._head = head = ResponseHead(status, headers, length)
            sink.on_head(head)
        except Exception as error:
            self._sink_error = error
            raise

    def on_chunk_header(self) -> None:
        self._between_chunks = False

    def on_chunk_complete(self) -> None:
        self._between_chunks = True

    def on_message_complete(self) -> None:
        if self._informational:
            self._informational = False
            self._headers = []
        elif not self._complete:
            self._complete = True
            if not self._parser.should_keep_alive():  # a trailer may have changed it
                self._keep_alive = False

    def _refuse(self, what: str) -> NoReturn:
        raise ProtocolError(f"{self._name} {what}")

    def _give_up(self, receiver: R, error: Exception) -> None:
        """Fail the answer for an exception that came out of the parser."""
        if self._sink_error is not None:
            receiver.sink_raised(self._sink_error)
            return
        cause = error.__context__ if isinstance(error, HttpParserCallbackError) else None
        if isinstance(cause, ProtocolError):
            receiver.failed(cause)
            return
        # llhttp's messages are fixed texts: nothing of the answer is in them.
        receiver.failed(ProtocolError(f"{self._name} sent an answer that is not HTTP/1.1: {error}"))
        if cause is not None and not isinstance(cause, Exception):
            raise cause  # KeyboardInterrupt and its like, caught by httptools in a callback
