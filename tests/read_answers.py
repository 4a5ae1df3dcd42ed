"""What bytes from a backend become, without a socket; right answers, and wrong ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.upstream import ResponseHead, UpstreamError
from gateway.upstream.head_cache import HeadCache
from gateway.upstream.reader import MAX_HEAD, AnswerReader


class ReadAnswer:
    """Receiver and sink in one: what a reader reports, body pieces joined.

    ``heads``: those that are known already.
    """

    def __init__(
        self,
        pieces: Iterable[bytes],
        *,
        bodyless: bool = False,
        eof: bool,
        heads: HeadCache | None = None,
    ) -> None:
        self.answered = False
        self.unasked = 0
        self.head: ResponseHead | None = None
        self.body = b""
        self.end: Any = None
        known = HeadCache() if heads is None else heads
        self.reader: AnswerReader[ReadAnswer] = AnswerReader("llama", known, self._on_unasked)
        self.reader.expect(self, self, bodyless)
        self.feed(pieces)
        if eof and self.end is None:
            self.reader.feed_eof()

    def feed(self, pieces: Iterable[bytes]) -> None:
        """Have more read, up to the end of the answer."""
        for piece in pieces:
            if self.end is None:
                self.reader.feed(piece)

    def _on_unasked(self) -> None:
        self.unasked += 1

    def on_head(self, head: ResponseHead) -> None:
        assert self.head is None
        self.head = head

    def on_body(self, data: bytes) -> None:
        assert self.head is not None
        assert data
        self.body += data

    def on_end(self) -> None: ...
    def on_error(self, error: UpstreamError) -> None: ...

    def answer_began(self) -> None:
        self.answered = True

    def completed(self, *, reusable: bool) -> None:
        self.end = "reusable" if reusable else "closed"

    def failed(self, error: UpstreamError) -> None:
        self.end = str(error)

    def lost(self, reason: str) -> None:
        self.end = "lost"

    def sink_raised(self, error: Exception) -> None:
        raise error

    @property
    def seen(self) -> tuple[Any, ...]:
        return self.head, self.body, self.end


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

# answer, whether to HEAD, status, body, how it ends
VALID = {
    "length": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        *(False, 200, b"hello", "reusable"),
    ),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", False, 200, b"", "reusable"),
    "no reason": (b"HTTP/1.1 404\r\nContent-Length: 1\r\n\r\nx", False, 404, b"x", "reusable"),
    "chunked": (
        CHUNKED + b"5\r\nhello\r\n00A;a=b;c\r\n, world!!\n\r\n0\r\n\r\n",
        *(False, 200, b"hello, world!!\n", "reusable"),
    ),
    "space behind chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding:  Chunked \r\n\r\n1\r\nx\r\n0\r\n\r\n",
        *(False, 200, b"x", "reusable"),
    ),
    "trailers": (
        CHUNKED + b"1\r\nx\r\n0\r\nDigest: abc\r\nOther:\r\n\r\n",
        *(False, 200, b"x", "reusable"),
    ),
    "trailer that closes": (
        CHUNKED + b"1\r\nx\r\n0\r\nConnection: close\r\n\r\n",
        *(False, 200, b"x", "closed"),
    ),
    "until close": (b"HTTP/1.1 200 OK\r\n\r\nall of it", False, 200, b"all of it", "closed"),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\nold", False, 200, b"old", "closed"),
    "HTTP/1.0 kept": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx",
        *(False, 200, b"x", "reusable"),
    ),
    # RFC 9112, 6.1: a coding in HTTP/1.0 is suspect; take it, but don't go on.
    "HTTP/1.0 chunked": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"1\r\nx\r\n0\r\n\r\n",
        *(False, 200, b"x", "closed"),
    ),
    "Connection: close": (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
        *(False, 200, b"x", "closed"),
    ),
    "204 with a length": (
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        *(False, 204, b"", "reusable"),
    ),
    "304 chunked": (
        b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
        *(False, 304, b"", "reusable"),
    ),
    "HEAD with a length": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        *(True, 200, b"", "closed"),
    ),
    "HEAD without": (b"HTTP/1.1 200 OK\r\n\r\n", True, 200, b"", "closed"),
    "1xx first": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        b"HTTP/1.1 201 Created\r\nX: y\r\nContent-Length: 2\r\n\r\nok",
        *(False, 201, b"ok", "reusable"),
    ),
    "upgrade offered": (
        b"HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 1\r\n\r\nx",
        *(False, 200, b"x", "reusable"),
    ),
}


def answer_with(*lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join((b"HTTP/1.1 200 OK", *lines, b"", body))


GARBAGE = {
    "not HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
    "TLS alert": (b"\x15\x03\x03\x00\x02\x02\x46", "not HTTP"),
    "version 2": (b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/2.0"),
    "version 0.9": (b"HTTP/0.9 200 OK\r\n\r\n", "HTTP/0.9"),
    "two digits of status": (b"HTTP/1.1 20 OK\r\n\r\n", "status"),
    "status 099": (b"HTTP/1.1 099 No\r\nContent-Length: 0\r\n\r\n", "status 99"),
    "status 101": (b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "101"),
    "1xx with a body": (b"HTTP/1.1 105 What\r\nContent-Length: 1\r\n\r\nx", "105"),
    "header without colon": (answer_with(b"garbage"), "header"),
    "header without name": (answer_with(b": x"), "header"),
    "space before colon": (answer_with(b"A : x"), "header"),
    "folded header": (answer_with(b"A: x", b" y"), "header"),
    "NUL in header": (answer_with(b"A: x\0y"), "header"),
    "CR in header": (answer_with(b"A: x\ry"), "LF"),
    "bare LF": (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", "CR"),
    "two lengths": (answer_with(b"Content-Length: 1", b"Content-Length: 2"), "Content-Length"),
    "list of lengths": (answer_with(b"Content-Length: 1, 2"), "Content-Length"),
    "negative length": (answer_with(b"Content-Length: -1"), "Content-Length"),
    "huge length": (answer_with(b"Content-Length: 99999999999999999999"), "Content-Length"),
    "length and chunked": (
        answer_with(b"Content-Length: 1", b"Transfer-Encoding: chunked"),
        "Content-Length",
    ),
    "chunked and length": (
        answer_with(b"Transfer-Encoding: chunked", b"Content-Length: 1"),
        "Content-Length",
    ),
    "another coding": (answer_with(b"Transfer-Encoding: gzip, chunked"), "coding"),
    "chunked not last": (answer_with(b"Transfer-Encoding: chunked, gzip"), "coding"),
    "chunked twice": (
        answer_with(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        "coding",
    ),
    "bad chunk size": (CHUNKED + b"xyz\r\n", "chunk"),
    "negative chunk size": (CHUNKED + b"-1\r\n", "chunk"),
    "huge chunk size": (CHUNKED + b"fffffffffffffffff\r\n", "hunk"),
    "chunk longer than its size": (CHUNKED + b"1\r\nxy\r\n0\r\n\r\n", "chunk"),
    "endless head": (answer_with(b"A: " + b"x" * MAX_HEAD), "head of over"),
    "endless header lines": (answer_with(*[b"A: b"] * MAX_HEAD), "head of over"),
    "endless 1xx": (b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_HEAD // 20), "head of over"),
    "endless trailer": (CHUNKED + b"0\r\nA: " + b"x" * (3 * MAX_HEAD), "trailer"),
    "endless chunk extension": (CHUNKED + b"1;" + b"x" * (3 * MAX_HEAD), "chunk header"),
}
