"""The ring of log lines, fed in pieces and followed by slow and fast readers."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from gateway.backends.logring import MAX_LINE, LogRing


def test_lines_come_out_however_the_pieces_end() -> None:
    text = "first\nsecond, with ä and 😀\r\n\nfourth\n".encode()
    for cut in range(len(text) + 1):
        ring = LogRing()
        ring.feed(text[:cut])
        ring.feed(text[cut:])
        assert ring.tail() == ["first", "second, with ä and 😀", "", "fourth"]
        assert ring.received == len(text)


def test_a_line_without_an_end_is_kept_back_until_the_writer_is_gone() -> None:
    ring = LogRing()
    ring.feed(b"loading ....")
    assert ring.tail() == []
    assert ring.received == 12
    ring.close_line()
    ring.close_line()
    assert ring.tail() == ["loading ...."]


def test_only_the_newest_lines_are_kept_and_all_are_counted() -> None:
    ring = LogRing(capacity=3)
    ring.feed(b"".join(b"%d\n" % n for n in range(10)))
    assert ring.tail() == ["7", "8", "9"]
    assert ring.tail(2) == ["8", "9"]
    assert ring.tail(0) == []
    assert ring.total == 10


@pytest.mark.parametrize("letter", ["x", "ä", "😀"])
def test_a_long_line_is_cut_and_nothing_of_its_end_is_put_behind_its_beginning(letter: str) -> None:
    ring = LogRing()
    for _ in range(100):
        ring.feed((letter * 1000).encode())
    ring.feed(b"END\nnext\n")
    assert ring.tail() == [letter * MAX_LINE, "next"]


def test_what_is_not_text_does_no_harm() -> None:
    ring = LogRing()
    ring.feed(b"\xff\xfe\x00\n")
    assert ring.tail() == ["\ufffd\ufffd\x00"]


def test_listeners_are_called_for_each_line_until_they_end() -> None:
    ring, heard = LogRing(), []
    end = ring.listen(lambda: heard.append(ring.total))
    ring.feed(b"a\nb\n")
    end()
    end()
    ring.feed(b"c\n")
    assert heard == [1, 2]


async def test_followers_get_the_backlog_and_then_every_new_line_once() -> None:
    ring = LogRing()
    ring.feed(b"1\n2\n3\n")
    async with contextlib.aclosing(ring.follow(backlog=2)) as lines:
        got = [await anext(lines)]
        ring.feed(b"4\n")  # while the backlog is still being read
        got += [await anext(lines), await anext(lines)]
        coming = asyncio.ensure_future(anext(lines))  # noqa: TID251 - cancelled by nobody
        await asyncio.sleep(0)
        assert not coming.done()
        ring.feed(b"5\n")
        assert [*got, await coming] == ["2", "3", "4", "5"]


async def test_a_slow_follower_loses_the_oldest_lines_and_is_told_how_many() -> None:
    ring = LogRing()
    async with contextlib.aclosing(ring.follow(backlog=0, capacity=2)) as lines:
        first = asyncio.ensure_future(anext(lines))  # noqa: TID251
        await asyncio.sleep(0)
        ring.feed(b"0\n")
        assert await first == "0"
        ring.feed(b"1\n2\n3\n4\n5\n")
        assert await anext(lines) == "... 3 lines left out: the reader is too slow ..."
        assert [await anext(lines), await anext(lines)] == ["4", "5"]


async def test_a_follower_that_stops_is_forgotten() -> None:
    ring = LogRing()
    ring.feed(b"1\n")
    lines = ring.follow()
    await anext(lines)
    assert ring.followers == 1
    await lines.aclose()
    assert ring.followers == 0
