"""Events of Responses get the numbers that llama-server leaves out."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BackendError
from gateway.proxy.dialect import RESPONSES
from gateway.proxy.numbering import Numbering

#: As build 11549 sends them: a thought, an answer and a call of a tool.
EVENTS: list[dict[str, Any]] = [
    {"type": "response.created", "response": {"id": "r", "status": "in_progress"}},
    {"type": "response.in_progress", "response": {"id": "r", "status": "in_progress"}},
    {"type": "response.output_item.added", "item": {"id": "rs", "type": "reasoning"}},
    {"type": "response.reasoning_text.delta", "delta": "Hm", "item_id": "rs"},
    {"type": "response.reasoning_text.delta", "delta": "...", "item_id": "rs"},
    {"type": "response.output_item.added", "item": {"id": "msg", "type": "message"}},
    {"type": "response.content_part.added", "item_id": "msg", "part": {"type": "output_text"}},
    {"type": "response.output_text.delta", "item_id": "msg", "delta": "Grüße"},
    {"type": "response.output_item.added", "item": {"id": "fc", "type": "function_call"}},
    {"type": "response.function_call_arguments.delta", "delta": "{}", "item_id": "fc"},
    {"type": "response.output_item.done", "item": {"id": "rs", "type": "reasoning"}},
    {"type": "response.output_text.done", "item_id": "msg", "text": "Grüße"},
    {"type": "response.content_part.done", "item_id": "msg", "part": {"type": "output_text"}},
    {"type": "response.output_item.done", "item": {"id": "msg", "type": "message"}},
    {"type": "response.completed", "response": {"id": "r", "output": [1]}, "timings": {"x": 1}},
]


def written(events: list[dict[str, Any]]) -> bytes:
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))
        for event in events
    )


def read(stream: bytes) -> list[dict[str, Any]]:
    *blocks, rest = stream.split(b"\n\n")
    assert not rest
    events = []
    for block in blocks:
        name, data = block.split(b"\n")
        event = orjson.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + event["type"].encode()
        events.append(event)
    return events


def numbered(stream: bytes) -> bytes:
    return Numbering("m", 7).feed(stream)


def test_every_event_says_where_it_belongs() -> None:
    events = read(numbered(written(EVENTS)))
    assert [event["sequence_number"] for event in events] == list(range(len(EVENTS) + 1))
    places = [
        (event["type"].removeprefix("response."), event["output_index"], event.get("content_index"))
        for event in events
        if "output_index" in event
    ]
    assert places == [
        ("output_item.added", 0, None),
        ("content_part.added", 0, 0),  # the announcement of the thought, which was missing
        ("reasoning_text.delta", 0, 0),
        ("reasoning_text.delta", 0, 0),
        ("output_item.added", 1, None),
        ("content_part.added", 1, 0),
        ("output_text.delta", 1, 0),
        ("output_item.added", 2, None),
        ("function_call_arguments.delta", 2, None),
        ("output_item.done", 0, None),
        ("output_text.done", 1, 0),
        ("content_part.done", 1, 0),
        ("output_item.done", 1, None),
    ]
    for event in events[:2]:
        response = {"id": "r", "status": "in_progress"}
        assert event["response"] == {**response, "created_at": 7, "model": "m", "output": []}
    for event in EVENTS[2:]:  # nothing is lost
        assert [new for new in events if event.items() <= new.items()]


def test_what_is_numbered_stays_as_it_is() -> None:
    once = numbered(written(EVENTS))
    assert read(numbered(once)) == read(once)


@given(st.lists(st.integers(0, len(written(EVENTS))), max_size=12))
def test_pieces_may_end_anywhere(cuts: list[int]) -> None:
    stream = written(EVENTS)
    numbering = Numbering("m", 7)
    ends = [*sorted(cuts), len(stream)]
    pieces = [stream[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert b"".join(map(numbering.feed, pieces)) == numbered(stream)


def test_what_is_no_such_event_goes_through() -> None:
    strange = (
        b": a comment\n\n",
        b"data: [DONE]\n\n",
        b"data: {broken\n\n",
        b'data: {"no": "type"}\n\n',
        b'data: {"type": 7}\n\n',
        b"\n\n",
    )
    for block in strange:
        assert numbered(block) == block
    odd = {"type": "response.reasoning_text.delta", "item_id": 7, "delta": "x"}
    assert read(numbered(written([odd]))) == [{**odd, "sequence_number": 0}]


def test_an_event_may_nest_deeply() -> None:
    """OpenAI's say a request's tools again, whose schemas may be of any depth."""
    tools: list[Any] = []
    for _ in range(400):
        tools = [tools]
    (event,) = EVENTS[:1]
    deep = {**event, "response": {**event["response"], "tools": tools}}
    data = f"event: {event['type']}\ndata: {json.dumps(deep)}\n\n".encode()
    assert read(numbered(data))[0]["response"]["tools"] == tools


DIED = BackendError("it died")


def test_the_last_event_takes_the_place_of_what_was_begun() -> None:
    numbering = Numbering("m", 7)
    stream = written(EVENTS)
    events = read(numbering.feed(stream[:-5]))
    assert events == read(numbered(stream))[:-1]
    assert numbering.half() == b""
    count = len(events)
    error, failed = read(numbering.last(RESPONSES.last_event(DIED), DIED))
    assert (error["type"], error["sequence_number"]) == ("error", count)
    assert error["message"] == error["error"]["message"] == "it died"
    assert (failed["type"], failed["sequence_number"]) == ("response.failed", count + 1)
    assert (failed["response"]["id"], failed["response"]["status"]) == ("r", "failed")
    assert failed["response"]["error"] == {"code": "backend_error", "message": "it died"}


# --- events that keep it alive ----------------------------------------------------------------


def without_comments(stream: bytes) -> bytes:
    return b"".join(line for line in stream.splitlines(True) if not line.startswith(b":"))


def statuses(events: list[dict[str, Any]]) -> list[str]:
    return [e["response"]["status"] for e in events if "status" in e.get("response", {})]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("numbers", [True, False])
def test_stream_that_we_began_is_announced_once(line_end: bytes, numbers: bool) -> None:
    """One response, announced once, whatever the server calls it and wherever pieces end."""
    numbering = Numbering("m", 7)
    begun = numbering.pulse(b"queued, position 2, 3 s", True) + numbering.pulse(b"working", False)
    assert begun.startswith(b": queued, position 2, 3 s\nevent: response.created\n")
    stream = numbered(written(EVENTS)) if numbers else written(EVENTS)
    coming = stream.replace(b"\n", line_end)
    for at in range(0, len(coming), 7):
        begun += numbering.feed(coming[at : at + 7])
    events = read(without_comments(begun))
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "queued", "in_progress", "in_progress"]
    assert kinds.count("created") == 1
    assert kinds[4:] == [e["type"].removeprefix("response.") for e in read(numbered(stream))[2:]]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    ids = {event["response"]["id"] for event in events if "response" in event}
    assert len(ids) == 1
    assert ids.pop().startswith("resp_")
    assert statuses(events)[:3] == ["queued", "queued", "in_progress"]
    for event in events[:3]:
        assert event["response"].items() >= {"model": "m", "created_at": 7, "output": []}.items()


@pytest.mark.parametrize("numbers", [True, False])
def test_heartbeat_in_a_stream_keeps_numbers_in_order(numbers: bool) -> None:
    """An event of ours among the server's: with its id, and those behind it are numbered anew."""
    numbering = Numbering("m", 7)
    stream = numbered(written(EVENTS)) if numbers else written(EVENTS)
    middle = stream.index(b"event: response.output_text.delta")
    got = numbering.feed(stream[:middle]) + numbering.pulse(b"working, 20 s", False)
    events = read(without_comments(got + numbering.feed(stream[middle:])))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert statuses(events) == ["in_progress"] * 3
    assert {event["response"]["id"] for event in events if "response" in event} == {"r"}
    assert events[-1]["type"] == "response.completed"
    assert numbering.pulse(b"working, 30 s", False) == b": working, 30 s\n"  # it is complete


def test_lines_of_another_kind_of_server_are_left_alone() -> None:
    numbering = Numbering("m", 7)
    pieces = [b"data: {", b'"type":"response.created"}\r\n\r', b"\n", b"data: {}\n\n"]
    assert [numbering.feed(piece) for piece in pieces] == [b"", pieces[0] + pieces[1], *pieces[2:]]
    assert numbering.pulse(b"working, 20 s", False) == b": working, 20 s\n"
    assert numbering.half() == b""
    numbering.feed(b"data: {}\r\n\r\ndata: {")
    assert numbering.half() == b"data: {"
    numbering.feed(b'"a":')
    assert numbering.half() is None
    assert numbering.last(b"\n: it died\n", DIED) == b"\n: it died\n"


def test_an_event_without_an_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.proxy.numbering.LONGEST", 5000)
    numbering = Numbering("m", 7)
    sent = numbering.feed(written(EVENTS[:2]))
    for _ in range(10):
        sent += numbering.feed(b"data: {" + b" " * 1000)
    assert numbering.over
    assert numbering.feed(b"\n\n" + written(EVENTS[2:])) == b""
    # It ends as any other that breaks off.
    sent += numbering.last(b"", BackendError("too long"))
    events = read(sent)
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.failed",
    ]
