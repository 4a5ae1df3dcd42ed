"""What bytes from a backend become for a sink: framing, garbage, and every way to cut them."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream import ProtocolError, ResponseHead, UpstreamError, UpstreamPool
from gateway.upstream.connection import MAX_HEAD, Connection


class _Pool:
    """Stands where the pool does, for a connection without a socket."""

    name = "llama"
    read_buffer = memoryview(bytearray(16))

    def connection_ended(self, connection: Connection) -> None: ...
    def connection_closed(self, connection: Connection) -> None: ...


class _Transport(asyncio.Transport):
    def abort(self) -> None: ...


class _Played:
    """Exchange and sink in one: what a connection reports, body pieces joined."""

    def __init__(self, pieces: Iterable[bytes], *, bodyless: bool = False, eof: bool) -> None:
        self.answered = False
        self.head: ResponseHead | None = None
        self.body = b""
        self.end: Any = None
        connection = Connection(_Pool())
        connection.connection_made(_Transport())
        connection.begin(self, self, bodyless)
        for piece in pieces:
            if self.end is None:
                connection.data_received(piece)
        if eof and self.end is None:
            connection.eof_received()

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

    def request_taken(self) -> None: ...

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
valid = pytest.mark.parametrize(
    ("raw", "bodyless", "status", "body", "end"), VALID.values(), ids=VALID.keys()
)


@valid
def test_valid_answer(raw: bytes, bodyless: bool, status: int, body: bytes, end: str) -> None:
    played = _Played([raw], bodyless=bodyless, eof=True)
    assert played.head is not None
    assert (played.head.status, played.body, played.end) == (status, body, end)
    assert played.answered


@valid
def test_valid_answer_cut_anywhere(
    raw: bytes, bodyless: bool, status: int, body: bytes, end: str
) -> None:
    whole = _Played([raw], bodyless=bodyless, eof=True).seen
    for at in range(1, len(raw)):
        assert _Played([raw[:at], raw[at:]], bodyless=bodyless, eof=True).seen == whole
    bytewise = [raw[i : i + 1] for i in range(len(raw))]
    assert _Played(bytewise, bodyless=bodyless, eof=True).seen == whole


@valid
def test_valid_answer_that_breaks_off_is_never_a_clean_end(
    raw: bytes, bodyless: bool, status: int, body: bytes, end: str
) -> None:
    head_size = raw.rindex(b"\r\n\r\n") + 4 if b"chunked" not in raw else raw.index(b"\r\n\r\n") + 4
    reads_to_eof = b"Length" not in raw and b"chunked" not in raw
    for at in range(len(raw)):
        if reads_to_eof and at >= head_size:
            break
        assert _Played([raw[:at]], bodyless=bodyless, eof=True).end == "lost", at


@given(st.sampled_from(list(VALID.values())), st.lists(st.integers(0, 200), max_size=12))
def test_any_cutting_gives_the_same_events(answer: tuple[Any, ...], cuts: list[int]) -> None:
    raw, bodyless = answer[0], answer[1]
    places = [0, *sorted({cut for cut in cuts if 0 < cut < len(raw)}), len(raw)]
    pieces = [raw[a:b] for a, b in itertools.pairwise(places)]
    played = _Played(pieces, bodyless=bodyless, eof=True)
    assert played.seen == _Played([raw], bodyless=bodyless, eof=True).seen


header_value = st.from_regex(r"[!-~]([ -~]{0,20}[!-~])?", fullmatch=True)
header_name = st.from_regex(r"X-[A-Za-z0-9-]{1,12}", fullmatch=True)


@given(
    st.lists(st.tuples(header_name, header_value), max_size=5),
    st.lists(st.binary(min_size=1, max_size=50), max_size=5),
    st.booleans(),
    st.data(),
)
def test_any_answer_cut_anyhow_arrives_as_it_was_sent(
    headers: list[tuple[str, str]], chunks: list[bytes], chunked: bool, data: st.DataObject
) -> None:
    lines = [(n.encode(), v.encode()) for n, v in headers]
    body = b"".join(chunks)
    if chunked:
        lines.append((b"Transfer-Encoding", b"chunked"))
        tail = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks) + b"0\r\n\r\n"
    else:
        lines.append((b"Content-Length", b"%d" % len(body)))
        tail = body
    raw = b"HTTP/1.1 200 OK\r\n" + b"".join(b"%b: %b\r\n" % line for line in lines) + b"\r\n" + tail
    cuts = data.draw(st.lists(st.integers(1, len(raw) - 1), max_size=10))
    places = [0, *sorted(set(cuts)), len(raw)]
    pieces = [raw[a:b] for a, b in itertools.pairwise(places)]
    length = None if chunked else len(body)
    head = ResponseHead(200, lines, length)
    assert _Played(pieces, eof=False).seen == (head, body, "reusable")


def test_head_keeps_names_order_and_doubles() -> None:
    raw = (
        b"HTTP/1.1 299 Odd  reason\r\nset-cookie: a=1\r\nX-Empty:\r\nSET-Cookie:  b=\xe9 \r\n"
        b"Content-length: 0\r\n\r\n"
    )
    head = _Played([raw], eof=False).head
    assert head == ResponseHead(
        299,
        [
            (b"set-cookie", b"a=1"),
            (b"X-Empty", b""),
            (b"SET-Cookie", b"b=\xe9 "),  # llhttp leaves what is behind a value
            (b"Content-length", b"0"),
        ],
        0,
    )


def test_body_pieces_come_as_they_arrive() -> None:
    """One for each read, whatever chunks there were in it."""
    pieces: list[bytes] = []

    class Watching(_Played):
        def on_body(self, data: bytes) -> None:
            pieces.append(data)

    Watching([CHUNKED, b"3\r\nabc\r\n2\r\nde\r\n", b"6\r\nfg", b"hijk\r\n"], eof=False)
    assert pieces == [b"abcde", b"fg", b"hijk"]


def _head(*lines: bytes, body: bytes = b"") -> bytes:
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
    "header without colon": (_head(b"garbage"), "header"),
    "header without name": (_head(b": x"), "header"),
    "space before colon": (_head(b"A : x"), "header"),
    "folded header": (_head(b"A: x", b" y"), "header"),
    "NUL in header": (_head(b"A: x\0y"), "header"),
    "CR in header": (_head(b"A: x\ry"), "LF"),
    "bare LF": (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", "CR"),
    "two lengths": (_head(b"Content-Length: 1", b"Content-Length: 2"), "Content-Length"),
    "list of lengths": (_head(b"Content-Length: 1, 2"), "Content-Length"),
    "negative length": (_head(b"Content-Length: -1"), "Content-Length"),
    "huge length": (_head(b"Content-Length: 99999999999999999999"), "Content-Length"),
    "length and chunked": (
        _head(b"Content-Length: 1", b"Transfer-Encoding: chunked"),
        "Content-Length",
    ),
    "chunked and length": (
        _head(b"Transfer-Encoding: chunked", b"Content-Length: 1"),
        "Content-Length",
    ),
    "another coding": (_head(b"Transfer-Encoding: gzip, chunked"), "coding"),
    "chunked not last": (_head(b"Transfer-Encoding: chunked, gzip"), "coding"),
    "chunked twice": (
        _head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        "coding",
    ),
    "bad chunk size": (CHUNKED + b"xyz\r\n", "chunk"),
    "negative chunk size": (CHUNKED + b"-1\r\n", "chunk"),
    "huge chunk size": (CHUNKED + b"fffffffffffffffff\r\n", "hunk"),
    "chunk longer than its size": (CHUNKED + b"1\r\nxy\r\n0\r\n\r\n", "chunk"),
    "endless head": (_head(b"A: " + b"x" * MAX_HEAD), "head of over"),
    "endless header lines": (_head(*[b"A: b"] * MAX_HEAD), "head of over"),
    "endless 1xx": (b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_HEAD // 20), "head of over"),
    "endless trailer": (CHUNKED + b"0\r\nA: " + b"x" * (3 * MAX_HEAD), "trailer"),
    "endless chunk extension": (CHUNKED + b"1;" + b"x" * (3 * MAX_HEAD), "chunk header"),
}


@pytest.mark.parametrize(("raw", "message"), GARBAGE.values(), ids=GARBAGE.keys())
@pytest.mark.parametrize("size", [1, 7, 4096, MAX_HEAD])
def test_garbage_is_a_protocol_error(raw: bytes, message: str, size: int) -> None:
    pieces = [raw[i : i + size] for i in range(0, len(raw), size)]
    played = _Played(pieces, eof=False)
    assert isinstance(played.end, str)
    assert re.search(message, played.end), played.end
    assert played.end.startswith("llama ")


def test_a_long_head_within_the_limit_is_taken() -> None:
    raw = _head(b"A: " + b"x" * (MAX_HEAD - 200), b"Content-Length: 1", body=b"x")
    assert _Played([raw], eof=False).end == "reusable"
    # The limit is for the head, not for the read that brings the body along.
    raw = _head(b"Content-Length: 200000", body=b"x" * 200_000)
    assert _Played([raw], eof=False).end == "reusable"


@pytest.mark.parametrize("extra", [b"x", b"HTTP/1.1 200 OK\r\n\r\n", b"H", b"\0"])
@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"])
def test_more_than_the_answer_is_not_for_the_pool(extra: bytes, close: bytes) -> None:
    raw = b"HTTP/1.1 200 OK\r\n" + close + b"Content-Length: 2\r\n\r\nok" + extra
    played = _Played([raw], eof=False)
    assert (played.body, played.end) == (b"ok", "closed")


def test_body_after_head_is_dropped() -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    assert _Played([raw], bodyless=True, eof=False).seen[1:] == (b"", "closed")


async def test_byte_by_byte_through_a_socket(backend: Any, recorder: Callable[[], Any]) -> None:
    raw = VALID["trailers"][0]

    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        for i in range(len(raw)):
            writer.write(raw[i : i + 1])
            await asyncio.sleep(0)
        await reader.read()

    pool = UpstreamPool(await backend.serve(handler), max_connections=1, name="llama")
    sink = recorder()
    await pool.send("GET", "/", (), None, sink)
    assert await sink.answer() == (200, b"x")
    await pool.close()


async def test_garbage_through_a_socket_is_a_502(backend: Any, recorder: Callable[[], Any]) -> None:
    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        writer.write(b"garbage\r\n\r\n")
        await reader.read()  # until the other side closes

    pool = UpstreamPool(await backend.serve(handler), max_connections=1, name="llama")
    for _ in range(2):  # the place comes back
        sink = recorder()
        exchange = await pool.send("GET", "/", (), None, sink)
        with pytest.raises(ProtocolError, match="llama sent an answer that is not HTTP") as caught:
            await sink.answer()
        assert caught.value.status == 502
        assert exchange.answered
    await pool.close()
