"""Chunks that go to a client as they came: nothing is lost or doubled, nothing broken passed on."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream import ChunkForwarder, ResponseHead
from gateway.upstream.chunks import LONGEST
from gateway.upstream.head_cache import HeadCache
from tests.read_answers import CHUNKED, GARBAGE, VALID, ReadAnswer


class Passed(ReadAnswer):
    """With a forwarder from the head on; the body is what went both ways, in order."""

    def __init__(
        self,
        pieces: Iterable[bytes],
        *,
        bodyless: bool = False,
        eof: bool,
        heads: HeadCache | None = None,
    ) -> None:
        self.passed: list[bytes] = []
        self.kept: list[bytes] = []
        self.forwarder = ChunkForwarder(self._write, self.kept.append)
        super().__init__(pieces, bodyless=bodyless, eof=eof, heads=heads)

    def on_head(self, head: ResponseHead) -> None:
        super().on_head(head)
        self.reader.pass_chunks(self.forwarder)

    def _write(self, chunk: bytes) -> None:
        size, line_end, rest = chunk.partition(b"\r\n")
        assert line_end
        assert rest.endswith(b"\r\n")
        assert size == b"%x" % (len(rest) - 2)
        self.passed.append(chunk)
        self.on_body(rest[:-2])


def framed(*bodies: bytes) -> list[bytes]:
    return [b"%x\r\n%b\r\n" % (len(body), body) for body in bodies]


WORDS = (b"one", b"two", b"six", b"three", b"ten")
EVENTS = [
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","delta":"%b"}\n\n' % word
    for word in WORDS
]
DONE = framed(b"data: [DONE]\n\n")[0]


def test_a_read_that_is_a_whole_chunk_goes_on_as_it_came() -> None:
    chunks = framed(*EVENTS)
    answer = Passed([CHUNKED, *chunks, b"0\r\n\r\n"], eof=False)
    assert answer.passed == chunks[1:]  # behind the first the parser stands between two
    assert answer.forwarder.chunks == len(answer.passed)
    assert (answer.body, answer.end) == (b"".join(EVENTS), "reusable")


def test_the_last_two_are_kept_for_their_usage(subtests: pytest.Subtests) -> None:
    """Some servers end a stream with an event of some length, behind the one with the usage."""
    chunks = framed(*EVENTS)
    for end in ([DONE + b"0\r\n\r\n"], [DONE, b"0\r\n\r\n"], [b"0\r\n\r\n"], [b"oops"]):
        with subtests.test(f"{end!r:.80}"):
            answer = Passed([CHUNKED, *chunks, *chunks, *end], eof=False)
            assert answer.kept[-2:] == chunks[-2:]
    answer = Passed([CHUNKED, *chunks, *chunks], eof=False)
    answer.forwarder.flush()
    answer.forwarder.flush()
    assert answer.kept[-2:] == chunks[-2:]
    assert answer.kept.count(chunks[-1]) == 1


def test_reads_that_are_no_whole_chunk_are_parsed(subtests: pytest.Subtests) -> None:
    first, second, third, *_ = framed(*EVENTS)
    for pieces in (
        [first + second, third],
        [first[:5], first[5:], second, third],
        [first, second + third[:1], third[1:]],
        [first, second[:-1], second[-1:] + third],
        [first + b"0\r\nTrailer: x\r\n\r\n"],
    ):
        with subtests.test(f"{pieces!r:.80}"):
            answer = Passed([CHUNKED, *pieces], eof=False)
            plain = ReadAnswer([CHUNKED, *pieces], eof=False)
            assert answer.seen == plain.seen


@pytest.mark.parametrize(
    "broken",
    [
        b"64\r\n%bXX" % (b"x" * 100),
        b"64\r\n%b\n\n" % (b"x" * 100),
        b"64\r\n%b\rX" % (b"x" * 100),
        b"64\n%b \r\n" % (b"x" * 100),
        b"+64\r\n%b\r\n" % (b"x" * 99),
        b"64 \r\n%b\r\n" % (b"x" * 99),
        b"63\r\n%b\r\n" % (b"x" * 100),
        b"66\r\n%b\r\n\r\n\r\n" % (b"x" * 100),
    ],
)
def test_what_only_looks_like_a_chunk_is_an_error(broken: bytes) -> None:
    good = framed(b"x" * 99, b"x" * 100, b"x" * 101, b"x" * 104)
    answer = Passed([CHUNKED, *good, *good, broken, b"0\r\n\r\n"], eof=False)
    assert "not HTTP/1.1" in str(answer.end)
    assert b"".join(answer.passed).find(broken) < 0


@pytest.mark.parametrize("size", [b"00AA", b"AA", b"aa;x=y"])
def test_sizes_written_otherwise_are_parsed(size: bytes) -> None:
    body = b"x" * 0xAA
    chunk = b"%b\r\n%b\r\n" % (size, body)
    answer = Passed([CHUNKED, *framed(body) * 2, chunk, chunk, b"0\r\n\r\n"], eof=False)
    assert (answer.body, answer.end) == (body * 4, "reusable")
    assert chunk not in answer.passed


def test_chunks_of_every_length_go_on_up_to_the_longest() -> None:
    first = framed(EVENTS[0])[0]
    for size in range(1, LONGEST + 10):
        chunk = framed(b"x" * size)[0]
        answer = Passed([CHUNKED, first, chunk, b"0\r\n\r\n"], eof=False)
        assert (answer.body, answer.end) == (EVENTS[0] + b"x" * size, "reusable")
        assert answer.passed == ([chunk] if 64 <= len(chunk) < LONGEST else [])


def test_long_chunks_are_parsed() -> None:
    chunk = framed(b"x" * 5000)[0]
    answer = Passed([CHUNKED, chunk, chunk, b"0\r\n\r\n"], eof=False)
    assert (len(answer.body), answer.passed, answer.end) == (10_000, [], "reusable")


def test_the_next_answer_is_not_for_the_forwarder_of_the_last_one() -> None:
    first, second, *_ = chunks = framed(*EVENTS)
    answer = Passed([CHUNKED, *chunks, *chunks, b"0\r\n\r\n"], eof=False)
    answer.reader.release()
    again = ReadAnswer([], eof=False)
    answer.reader.expect(again, again, False)
    before = len(answer.passed)
    for piece in (CHUNKED, first, second, b"0\r\n\r\n"):
        answer.reader.feed(piece)
    assert again.body == EVENTS[0] + EVENTS[1]
    assert len(answer.passed) == before


def test_a_client_that_has_gone_is_no_error() -> None:
    chunks = framed(*EVENTS[:3])
    answer = Passed([CHUNKED, *chunks], eof=False)

    def gone(data: bytes) -> None:
        raise RuntimeError("the handler is closed")  # what uvloop raises

    answer.forwarder.write = gone
    answer.reader.feed(chunks[0])
    assert answer.end is None


@pytest.mark.parametrize(("raw", "bodyless"), [v[:2] for v in VALID.values()], ids=VALID.keys())
def test_valid_answer_cut_anywhere_is_parsed_alike(raw: bytes, bodyless: bool) -> None:
    whole = ReadAnswer([raw], bodyless=bodyless, eof=True).seen
    for a, b in itertools.combinations(range(1, len(raw)), 2):
        pieces = [raw[:a], raw[a:b], raw[b:]]
        assert Passed(pieces, bodyless=bodyless, eof=True).seen == whole


@pytest.mark.parametrize("raw", [v[0] for v in GARBAGE.values()], ids=GARBAGE.keys())
@pytest.mark.parametrize("size", [7, 4096])
def test_garbage_is_the_same_error(raw: bytes, size: int) -> None:
    pieces = [raw[i : i + size] for i in range(0, len(raw), size)]
    assert Passed(pieces, eof=False).end == ReadAnswer(pieces, eof=False).end


@given(
    st.lists(st.sampled_from([*EVENTS, b"x", b"", b"y" * 300, b"z" * 5000]), max_size=12),
    st.lists(st.integers(0, 12000), max_size=6),
    st.sampled_from([b"", b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"oops"]),
)
def test_any_stream_cut_anyhow_is_the_same(
    bodies: list[bytes], cuts: list[int], end: bytes
) -> None:
    chunks = framed(*filter(None, bodies))
    raw = b"".join(chunks) + end
    # Where chunks end, as they mostly come, and anywhere.
    ends = itertools.accumulate(len(chunk) for chunk in chunks)
    places = [0, *sorted({*ends, *(cut for cut in cuts if cut < len(raw))}), len(raw)]
    pieces = [CHUNKED, *(raw[a:b] for a, b in itertools.pairwise(places) if a < b)]
    assert Passed(pieces, eof=True).seen == ReadAnswer(pieces, eof=True).seen
