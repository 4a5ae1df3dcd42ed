"""A stream that breaks within an event still says why, in a way that its clients can read."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.last_event import last_event, rest_of

ERROR: dict[str, Any] = {"type": "error", "error": {"message": "it died", "code": "gone"}}
TEXTS = st.text() | st.sampled_from(["\\", '"', "😀", "ü\\u", "𝄞\n"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=5)


@given(OBJECTS, st.booleans(), st.sampled_from([None, (", ", ": ")]), st.data())
def test_half_of_any_object_becomes_one_with_the_error(
    whole: dict[str, Any], ascii_only: bool, separators: Any, data: st.DataObject
) -> None:
    try:
        text = json.dumps(whole, ensure_ascii=ascii_only, separators=separators).encode()
    except UnicodeEncodeError:  # half a character: not JSON that anything sends
        return
    begun = text[: data.draw(st.integers(0, len(text) - 1))]
    rest = rest_of(begun, ERROR)
    assert rest is not None
    for parse in (json.loads, orjson.loads):
        assert parse(begun + rest).items() >= ERROR.items()


@pytest.mark.parametrize(
    "begun",
    [b'{"a": 1}', b"[1, 2", b"[DO", b"[DONE]", b"plain", b'"text', b'{"a"} {', b"{]", b'{"a" \x00'],
)
def test_half_of_what_is_no_object_gets_no_end(begun: bytes) -> None:
    rest = rest_of(begun, ERROR)
    assert rest is None or orjson.loads(begun + rest) is None


def dispatched(stream: bytes) -> list[tuple[str, str]]:
    """The events of a stream (WHATWG HTML, 9.2.6): name and data."""
    events = []
    name, data = "", list[str]()
    for line in stream.decode().split("\n")[:-1]:
        field, _, value = line.partition(":")
        if not line:
            if data:
                events.append((name, "\n".join(data)))
            name, data = "", []
        elif field == "event":
            name = value.removeprefix(" ")
        elif field == "data":
            data.append(value.removeprefix(" "))
    return events


EVENT = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"Gr\xc3'
BEFORE = b'data: {"a":1}\n\n'


@pytest.mark.parametrize("cut", [*range(len(EVENT) + 1)])
def test_wherever_it_breaks_the_error_is_read(cut: int) -> None:
    half = EVENT[:cut]
    *before, (name, said) = dispatched(BEFORE + half + last_event(half, "error", ERROR, "it died"))
    assert before == [("", '{"a":1}')]
    assert name == "error"
    assert json.loads(said).items() >= ERROR.items()


@pytest.mark.parametrize(
    ("half", "events"),
    [
        (b"", []),
        (b": working, 7 s\n", []),
        (b": worki", []),
        (b'data: {"b":2}\n', [("", '{"b":2}')]),
        (b'event: x\ndata: {"b":2}\n', [("x", '{"b":2}')]),
        (b'data: {"b":2}', [("", '{"b":2}')]),
        (b'data: {"b":2}\nre', [("", '{"b":2}')]),
        (b"id: 7\nevent: x\n", []),
    ],
)
@pytest.mark.parametrize("name", ["", "error"])
def test_last_event_adds_no_line_too_many(
    half: bytes, events: list[tuple[str, str]], name: str
) -> None:
    ending = last_event(half, name, ERROR, "it died")
    got = dispatched(half + ending)
    assert got[:-1] == events
    assert (name and got[-1][0], json.loads(got[-1][1])) == (name, ERROR)
    if not events and not half.strip(b": worki"):
        assert not ending.startswith(b"\n\n")


@pytest.mark.parametrize("half", [None, b"data: [DON", b"data: 1\ndata: {"])
def test_what_cannot_be_completed_is_dropped_by_the_client(half: bytes | None) -> None:
    ending = last_event(half, "error", ERROR, "it\n\ndied")
    assert dispatched((half or b"data: {") + ending) == []
    assert ending == b"\n: it died\n"
