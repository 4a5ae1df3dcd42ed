"""What bytes from a backend become for a sink: framing, garbage, and every way to cut them."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream import ProtocolError, ResponseHead, UpstreamPool
from gateway.upstream.reader import MAX_HEAD
from tests.pools import GET
from tests.read_answers import CHUNKED, GARBAGE, VALID, ReadAnswer, answer_with

valid = pytest.mark.parametrize(
    ("raw", "bodyless", "status", "body", "end"), VALID.values(), ids=VALID.keys()
)


@valid
def test_valid_answer_is_parsed(
    raw: bytes, bodyless: bool, status: int, body: bytes, end: str
) -> None:
    answer = ReadAnswer([raw], bodyless=bodyless, eof=True)
    assert answer.head is not None
    assert (answer.head.status, answer.body, answer.end) == (status, body, end)
    assert answer.answered


@valid
def test_valid_answer_cut_anywhere_is_parsed_alike(
    raw: bytes, bodyless: bool, status: int, body: bytes, end: str
) -> None:
    whole = ReadAnswer([raw], bodyless=bodyless, eof=True).seen
    for at in range(1, len(raw)):
        assert ReadAnswer([raw[:at], raw[at:]], bodyless=bodyless, eof=True).seen == whole
    bytewise = [raw[i : i + 1] for i in range(len(raw))]
    assert ReadAnswer(bytewise, bodyless=bodyless, eof=True).seen == whole


@valid
def test_valid_answer_that_breaks_off_is_never_a_clean_end(
    raw: bytes, bodyless: bool, status: int, body: bytes, end: str
) -> None:
    head_size = raw.rindex(b"\r\n\r\n") + 4 if b"chunked" not in raw else raw.index(b"\r\n\r\n") + 4
    reads_to_eof = b"Length" not in raw and b"chunked" not in raw
    for at in range(len(raw)):
        if reads_to_eof and at >= head_size:
            break
        assert ReadAnswer([raw[:at]], bodyless=bodyless, eof=True).end == "lost", at


@given(st.sampled_from(list(VALID.values())), st.lists(st.integers(0, 200), max_size=12))
def test_any_cutting_gives_the_same_events(answer: tuple[Any, ...], cuts: list[int]) -> None:
    raw, bodyless = answer[0], answer[1]
    places = [0, *sorted({cut for cut in cuts if 0 < cut < len(raw)}), len(raw)]
    pieces = [raw[a:b] for a, b in itertools.pairwise(places)]
    read = ReadAnswer(pieces, bodyless=bodyless, eof=True)
    assert read.seen == ReadAnswer([raw], bodyless=bodyless, eof=True).seen


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
        framing = (b"Transfer-Encoding", b"chunked")
        tail = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks) + b"0\r\n\r\n"
    else:
        framing = (b"Content-Length", b"%d" % len(body))
        tail = body
    fields = b"".join(b"%b: %b\r\n" % line for line in (*lines, framing))
    raw = b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n" + tail
    cuts = data.draw(st.lists(st.integers(1, len(raw) - 1), max_size=10))
    places = [0, *sorted(set(cuts)), len(raw)]
    pieces = [raw[a:b] for a, b in itertools.pairwise(places)]
    length = None if chunked else len(body)
    head = ResponseHead(200, [*lines, framing] if chunked else lines, length)
    assert ReadAnswer(pieces, eof=False).seen == (head, body, "reusable")


def test_head_keeps_names_order_and_doubles() -> None:
    raw = (
        b"HTTP/1.1 299 Odd  reason\r\nset-cookie: a=1\r\nX-Empty:\r\nSET-Cookie:  b=\xe9 \r\n"
        b"Content-length: 0\r\n\r\n"
    )
    head = ReadAnswer([raw], eof=False).head
    assert head == ResponseHead(
        299,
        [
            (b"set-cookie", b"a=1"),
            (b"X-Empty", b""),
            (b"SET-Cookie", b"b=\xe9 "),  # llhttp leaves what is behind a value
        ],
        0,
    )


def test_body_pieces_come_as_they_arrive() -> None:
    """One for each read, whatever chunks there were in it."""
    pieces: list[bytes] = []

    class Watching(ReadAnswer):
        def on_body(self, data: bytes) -> None:
            pieces.append(data)

    Watching([CHUNKED, b"3\r\nabc\r\n2\r\nde\r\n", b"6\r\nfg", b"hijk\r\n"], eof=False)
    assert pieces == [b"abcde", b"fg", b"hijk"]


@pytest.mark.parametrize(("raw", "message"), GARBAGE.values(), ids=GARBAGE.keys())
@pytest.mark.parametrize("size", [1, 7, 4096, MAX_HEAD])
def test_garbage_is_a_protocol_error(raw: bytes, message: str, size: int) -> None:
    pieces = [raw[i : i + size] for i in range(0, len(raw), size)]
    answer = ReadAnswer(pieces, eof=False)
    assert isinstance(answer.end, str)
    assert re.search(message, answer.end), answer.end
    assert answer.end.startswith("llama ")


def test_a_long_head_within_the_limit_is_taken() -> None:
    raw = answer_with(b"A: " + b"x" * (MAX_HEAD - 200), b"Content-Length: 1", body=b"x")
    assert ReadAnswer([raw], eof=False).end == "reusable"
    # The limit is for the head, not for the read that brings the body along.
    raw = answer_with(b"Content-Length: 200000", body=b"x" * 200_000)
    assert ReadAnswer([raw], eof=False).end == "reusable"


@pytest.mark.parametrize("extra", [b"x", b"HTTP/1.1 200 OK\r\n\r\n", b"H", b"\0"])
@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"])
def test_more_than_the_answer_is_not_for_the_pool(extra: bytes, close: bytes) -> None:
    raw = b"HTTP/1.1 200 OK\r\n" + close + b"Content-Length: 2\r\n\r\nok" + extra
    answer = ReadAnswer([raw], eof=False)
    assert (answer.body, answer.end) == (b"ok", "closed")


def test_body_after_head_is_dropped() -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    assert ReadAnswer([raw], bodyless=True, eof=False).seen[1:] == (b"", "closed")


async def test_answer_is_read_byte_by_byte_through_a_socket(
    backend: Any, recorder: Callable[[], Any]
) -> None:
    raw = VALID["trailers"][0]

    async def handler(reader: Any, writer: Any, number: int) -> None:
        await backend.request(reader)
        for i in range(len(raw)):
            writer.write(raw[i : i + 1])
            await asyncio.sleep(0)
        await reader.read()

    pool = UpstreamPool(await backend.serve(handler), max_connections=1, name="llama")
    sink = recorder()
    await pool.send(GET, sink)
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
        exchange = await pool.send(GET, sink)
        with pytest.raises(ProtocolError, match="llama sent an answer that is not HTTP") as caught:
            await sink.answer()
        assert caught.value.status == 502
        assert exchange.answered
    await pool.close()
