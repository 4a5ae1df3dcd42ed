"""Recordings: what they hold, and how much memory all of them may take."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import GatewayError
from gateway.streams.kept import KeptStreams
from gateway.streams.recording import Reader, Recording

KIB = 1024


def last_event(error: GatewayError) -> bytes:
    return b"data: {}\n\n"


def recorded(kept: KeptStreams, size: int, key_id: str = "k") -> Recording:
    """A recording of ``size`` bytes that has ended."""
    recording = kept.begin(key_id, last_event)
    recording.add(bytes(size))
    kept.end(recording)
    return recording


def there(kept: KeptStreams, *recordings: Recording) -> list[bool]:
    return [kept.find(one.id, one.key_id) is one for one in recordings]


async def test_those_that_ended_first_make_room() -> None:
    kept = KeptStreams(keep=60, max_size=320 * KIB)
    old = [recorded(kept, 30 * KIB) for _ in range(10)]
    assert there(kept, *old) == [True] * 10
    new = recorded(kept, 30 * KIB)
    assert there(kept, *old, new) == [False] + 10 * [True]
    assert old[0].pieces == []
    kept.close()


async def test_one_stream_takes_at_most_an_eighth() -> None:
    kept = KeptStreams(keep=60, max_size=384 * KIB)
    other, running = recorded(kept, KIB), kept.begin("k", last_event)
    for _ in range(47):
        running.add(bytes(KIB - 48))
    assert there(kept, other, running) == [True, True]
    running.add(bytes(2 * KIB))
    assert there(kept, other, running) == [True, False]
    running.add(bytes(320 * KIB))
    assert running.pieces == []
    kept.end(running)
    assert there(kept, recorded(kept, KIB)) == [True]
    kept.close()


async def test_running_streams_are_not_given_up_for_others() -> None:
    kept = KeptStreams(keep=60, max_size=160 * KIB)
    running = [kept.begin("k", last_event) for _ in range(10)]
    for one in running:
        one.add(bytes(15 * KIB))
    late = kept.begin("k", last_event)
    late.add(b"more")
    assert there(kept, *running, late) == [True] * 10 + [False]
    for one in running:
        kept.end(one)
    assert there(kept, recorded(kept, KIB)) == [True]
    kept.close()


async def test_recording_is_forgotten_in_time_but_not_while_it_is_read() -> None:
    kept = KeptStreams(keep=0.05, max_size=160 * KIB)
    read, other = recorded(kept, KIB), recorded(kept, KIB)
    kept.join(read)
    async with asyncio.timeout(20):
        while there(kept, other) == [True]:
            await asyncio.sleep(0.01)
    assert there(kept, read) == [True]
    kept.leave(read)
    async with asyncio.timeout(20):
        while there(kept, read) == [True]:
            await asyncio.sleep(0.01)
    kept.close()


@pytest.mark.parametrize("at_once", [1, 2, 100])
@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_events_are_numbered_however_they_were_cut(
    at_once: int, chunked: bool, line_end: bytes
) -> None:
    kept = KeptStreams(keep=60, max_size=160 * KIB)
    recording = kept.begin("k", last_event)
    recording.chunked = chunked
    stream = (
        b": waiting\ndata: 1\n\n: alone\n\nid: theirs\nevent: x\ndata: 2\ndata: more\n\n"
        b"data: 3\nid: theirs\n\n"
    ).replace(b"\n", line_end)
    for start in range(0, len(stream), 5):
        piece = stream[start : start + 5]
        recording.add(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
    if chunked:
        recording.add(b"0\r\n\r\n")
    for after in range(4):
        reader, found = Reader(recording, after), b""
        while not reader.at_end:
            found += reader.read(at_once)
        wanted = (
            b"id: 1\n: waiting\ndata: 1\n\n",
            b"id: 2\nevent: x\ndata: 2\ndata: more\n\n",
            b"id: 3\ndata: 3\n\n",
        )
        assert (found, reader.number) == (b"".join(wanted[after:]), 3)
