"""Heads that were parsed before: all is as if they were parsed again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from gateway.upstream import head_cache
from gateway.upstream.connection import MAX_HEAD
from tests.played import CHUNKED, GARBAGE, VALID, Played, answer_with


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    head_cache._heads.clear()
    yield
    head_cache._heads.clear()


JSON = (b"Server: llama.cpp", b"Content-Type: application/json", b"Keep-Alive: timeout=5")


def sized(body: bytes, *lines: bytes) -> bytes:
    return answer_with(*(lines or JSON), b"Content-Length: %d" % len(body), body=body)


def parser_calls(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the parsers of all connections made from now on are fed."""
    from gateway.upstream import connection

    fed: list[bytes] = []

    class Watched(connection._Parser):  # type: ignore[misc]
        def feed_data(self, data: bytes) -> None:
            fed.append(data)
            super().feed_data(data)

    monkeypatch.setattr(connection, "_Parser", Watched)
    return fed


def test_the_second_one_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    fed = parser_calls(monkeypatch)
    first = Played([sized(b"one")], eof=False)
    second = Played([sized(b"another")], eof=False)
    assert len(fed) == 1
    assert first.head is not None
    assert second.head is not None
    assert first.head.headers == second.head.headers
    assert (second.head.status, second.head.length) == (200, 7)
    assert (second.body, second.end) == (b"another", "reusable")


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
def test_any_other_byte_is_parsed(other: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = Played([other], eof=False)
    head_cache._heads.clear()
    fed = parser_calls(monkeypatch)
    Played([sized(b"x")], eof=False)
    assert Played([other], eof=False).seen == fresh.seen
    assert fed[1:] == [other]


def test_what_a_chunk_holds_is_no_head() -> None:
    inside = b"\r\nContent-Length: 5\r\n\r\nhello"
    raw = CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(inside), inside)
    for _ in range(2):
        assert Played([raw], eof=False).body == inside
    assert not head_cache._heads


@pytest.mark.parametrize("name", VALID)
def test_valid_answers_a_second_time_cut_anywhere(name: str) -> None:
    raw, bodyless, *_ = VALID[name]
    whole = Played([raw], bodyless=bodyless, eof=True).seen
    for a, b in itertools.combinations(range(1, len(raw)), 2):
        pieces = [raw[:a], raw[a:b], raw[b:]]
        assert Played(pieces, bodyless=bodyless, eof=True).seen == whole


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_garbage_every_time(name: str) -> None:
    raw = GARBAGE[name][0]
    ends = []
    for _ in range(3):
        Played([sized(b"x", b"A: b")], eof=False)
        ends.append(Played([raw], eof=False).end)
    assert ends[0] == ends[1] == ends[2]


def test_an_answer_that_breaks_off_is_never_a_clean_end() -> None:
    raw = sized(b"hello")
    Played([raw], eof=False)
    for at in range(len(raw)):
        assert Played([raw[:at]], eof=True).end == "lost"
        assert Played([raw[: at // 2], raw[at // 2 : at]], eof=True).end == "lost"


def test_more_than_the_answer_is_not_for_the_pool() -> None:
    raw = sized(b"hello")
    Played([raw], eof=False)
    head, body = raw[:-5], raw[-5:]
    for pieces in ([raw + b"x"], [head, body + b"x"], [head, body[:2], body[2:] + b"HTTP"]):
        played = Played(pieces, eof=False)
        assert (played.body, played.end) == (b"hello", "closed")


def test_no_body_at_all() -> None:
    for _ in range(2):
        assert Played([sized(b"")], eof=False).end == "reusable"
    for _ in range(2):
        played = Played([sized(b"hello")[:-5]], bodyless=True, eof=False)  # to HEAD
        assert (played.body, played.end) == (b"", "closed")


def test_one_answer_after_the_other_on_one_connection() -> None:
    connection = Played([], eof=False).connection
    other = (b"Server: llama.cpp", b"Content-Type: text/plain")
    bodies = (b"one", b"two", b"", b"four and more", b"a" * 12, b"b" * 99, b"c" * 100, b"d")
    for lines in (JSON, other, JSON, other):
        for body in bodies:
            played = Played([], eof=False)
            connection.begin(played, played, False)
            for piece in (sized(body, *lines)[:-1], sized(body, *lines)[-1:]):
                if played.end is None:
                    connection.data_received(piece)
            assert (played.body, played.end) == (body, "reusable")
            assert played.head is not None
            assert played.head.length == len(body)
            assert played.head.headers[1][1] == lines[1].partition(b": ")[2]


def test_one_that_closes_is_known_as_one_that_closes() -> None:
    for _ in range(2):
        assert Played([sized(b"x", b"Connection: close")], eof=False).end == "closed"


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_those_without_a_body_may_name_any_length(status: bytes) -> None:
    for length in (b"0", b"5"):
        raw = answer_with(b"A: b", b"Content-Length: " + length).replace(b"200 OK", status)
        played = Played([raw], eof=False)
        assert (played.body, played.end) == (b"", "reusable")


@pytest.mark.parametrize(("rest", "bodyless"), [(b"more", False), (b"", True)])
def test_what_closes_one_connection_is_not_known_of_its_head(rest: bytes, bodyless: bool) -> None:
    assert Played([sized(b"") + rest], bodyless=bodyless, eof=False).end == "closed"
    for body in (b"", b"hello"):
        assert Played([sized(body)], eof=False).end == "reusable"


def test_what_is_known_is_bounded() -> None:
    for number in range(500):
        Played([sized(b"x", b"X: %d" % number)], eof=False)
    assert len(head_cache._heads) <= 64
    Played([sized(b"x", b"X: " + b"y" * (MAX_HEAD // 2))], eof=False)
    assert max(map(len, head_cache._heads)) <= 4096
