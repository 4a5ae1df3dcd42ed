"""Heads that were parsed before: all is as if they were parsed again."""

from __future__ import annotations

import itertools

import pytest

from gateway.upstream.head_cache import HeadCache
from gateway.upstream.reader import MAX_HEAD
from tests.read_answers import CHUNKED, GARBAGE, VALID, ReadAnswer, answer_with


@pytest.fixture
def heads() -> HeadCache:
    return HeadCache()


JSON = (b"Server: llama.cpp", b"Content-Type: application/json", b"Keep-Alive: timeout=5")


def sized(body: bytes, *lines: bytes) -> bytes:
    return answer_with(*(lines or JSON), b"Content-Length: %d" % len(body), body=body)


def read(raw: bytes, heads: HeadCache) -> ReadAnswer:
    return ReadAnswer([raw], eof=False, heads=heads)


def known_again(first: ReadAnswer, second: ReadAnswer) -> bool:
    """Whether the head of the second is the first's, and was not parsed anew."""
    assert first.head is not None
    assert second.head is not None
    return first.head.headers is second.head.headers


def test_head_that_comes_again_is_not_parsed(heads: HeadCache) -> None:
    first, second = read(sized(b"one"), heads), read(sized(b"another"), heads)
    assert known_again(first, second)
    assert second.head is not None
    assert (second.head.status, second.head.length) == (200, 7)
    assert (second.body, second.end) == (b"another", "reusable")


def test_heads_of_one_backend_are_not_those_of_another(heads: HeadCache) -> None:
    assert not known_again(read(sized(b"one"), heads), read(sized(b"one"), HeadCache()))


@pytest.mark.parametrize(
    "other",
    [
        sized(b"x", *JSON, b"X: y"),
        sized(b"x", *JSON, b"Connection: close"),
        sized(b"x").replace(b"200 OK", b"201 OK"),
        sized(b"x").replace(b"HTTP/1.1", b"HTTP/1.0"),
        sized(b"x").replace(b"Content-Length", b"content-length"),
        sized(b"x").replace(b"Length: 1", b"Length: 01 "),
        sized(b"x").replace(b"Length: 1", b"Length:  1"),
        sized(b"x").replace(b"Length: 1", b"Length: +1"),
        sized(b"x").replace(b"Length: 1", b"Length: 1, 1"),
        sized(b"x", *JSON, b"Content-Length: 1"),
        sized(b"x", *JSON, b"Transfer-Encoding: chunked"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + sized(b"x"),
    ],
)
def test_head_with_any_other_byte_is_parsed(other: bytes, heads: HeadCache) -> None:
    known = read(sized(b"x"), heads)
    found = read(other, heads)
    assert found.seen == read(other, HeadCache()).seen
    assert found.head is None or not known_again(known, found)


def test_what_a_chunk_holds_is_no_head(heads: HeadCache) -> None:
    inside = b"\r\nContent-Length: 5\r\n\r\nhello"
    raw = CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(inside), inside)
    for _ in range(2):
        assert read(raw, heads).body == inside
    assert len(heads) == 0


@pytest.mark.parametrize("name", VALID)
def test_valid_answer_a_second_time_cut_anywhere_is_parsed_alike(
    name: str, heads: HeadCache
) -> None:
    raw, bodyless, *_ = VALID[name]
    whole = ReadAnswer([raw], bodyless=bodyless, eof=True, heads=heads).seen
    for a, b in itertools.combinations(range(1, len(raw)), 2):
        pieces = [raw[:a], raw[a:b], raw[b:]]
        assert ReadAnswer(pieces, bodyless=bodyless, eof=True, heads=heads).seen == whole


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_garbage_every_time(name: str, heads: HeadCache) -> None:
    raw = GARBAGE[name][0]
    ends = []
    for _ in range(3):
        ReadAnswer([sized(b"x", b"A: b")], eof=False, heads=heads)
        ends.append(ReadAnswer([raw], eof=False, heads=heads).end)
    assert ends[0] == ends[1] == ends[2]


def test_an_answer_that_breaks_off_is_never_a_clean_end(heads: HeadCache) -> None:
    raw = sized(b"hello")
    ReadAnswer([raw], eof=False, heads=heads)
    for at in range(len(raw)):
        assert ReadAnswer([raw[:at]], eof=True, heads=heads).end == "lost"
        assert ReadAnswer([raw[: at // 2], raw[at // 2 : at]], eof=True, heads=heads).end == "lost"


def test_more_than_the_answer_is_not_for_the_pool(
    heads: HeadCache, subtests: pytest.Subtests
) -> None:
    raw = sized(b"hello")
    ReadAnswer([raw], eof=False, heads=heads)
    head, body = raw[:-5], raw[-5:]
    for pieces in ([raw + b"x"], [head, body + b"x"], [head, body[:2], body[2:] + b"HTTP"]):
        with subtests.test(f"{pieces!r:.80}"):
            answer = ReadAnswer(pieces, eof=False, heads=heads)
            assert (answer.body, answer.end) == (b"hello", "closed")


def test_answer_without_a_body_leaves_the_connection_reusable(heads: HeadCache) -> None:
    for _ in range(2):
        assert ReadAnswer([sized(b"")], eof=False, heads=heads).end == "reusable"
    for _ in range(2):
        answer = ReadAnswer(
            [sized(b"hello")[:-5]], bodyless=True, eof=False, heads=heads
        )  # to HEAD
        assert (answer.body, answer.end) == (b"", "closed")


def test_one_answer_after_the_other_on_one_connection(subtests: pytest.Subtests) -> None:
    reader = ReadAnswer([], eof=False).reader
    other = (b"Server: llama.cpp", b"Content-Type: text/plain")
    bodies = (b"one", b"two", b"", b"four and more", b"a" * 12, b"b" * 99, b"c" * 100, b"d")
    for lines in (JSON, other, JSON, other):
        with subtests.test(f"{lines!r:.80}"):
            for body in bodies:
                answer = ReadAnswer([], eof=False)
                reader.expect(answer, answer, False)
                for piece in (sized(body, *lines)[:-1], sized(body, *lines)[-1:]):
                    if answer.end is None:
                        reader.feed(piece)
                assert (answer.body, answer.end) == (body, "reusable")
                assert answer.head is not None
                assert answer.head.length == len(body)
                assert answer.head.headers[1][1] == lines[1].partition(b": ")[2]


def test_one_that_closes_is_known_as_one_that_closes(heads: HeadCache) -> None:
    for _ in range(2):
        assert (
            ReadAnswer([sized(b"x", b"Connection: close")], eof=False, heads=heads).end == "closed"
        )


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize("length", [b"0", b"5"])
def test_those_without_a_body_may_name_any_length(
    status: bytes, heads: HeadCache, length: bytes
) -> None:
    raw = answer_with(b"A: b", b"Content-Length: " + length).replace(b"200 OK", status)
    answer = ReadAnswer([raw], eof=False, heads=heads)
    assert (answer.body, answer.end) == (b"", "reusable")


@pytest.mark.parametrize(("rest", "bodyless"), [(b"more", False), (b"", True)])
def test_what_closes_one_connection_is_not_known_of_its_head(
    rest: bytes, bodyless: bool, heads: HeadCache
) -> None:
    assert (
        ReadAnswer([sized(b"") + rest], bodyless=bodyless, eof=False, heads=heads).end == "closed"
    )
    for body in (b"", b"hello"):
        assert ReadAnswer([sized(body)], eof=False, heads=heads).end == "reusable"


def test_what_is_known_is_bounded(heads: HeadCache) -> None:
    for number in range(500):
        read(sized(b"x", b"X: %d" % number), heads)
    assert len(heads) <= 64
    last = sized(b"x", b"X: 499")
    assert known_again(read(last, heads), read(last, heads))


def test_long_heads_are_parsed_every_time(heads: HeadCache) -> None:
    long = sized(b"x", b"X: " + b"y" * (MAX_HEAD // 2))
    assert not known_again(read(long, heads), read(long, heads))
    assert len(heads) == 0
