"""Bodies in and out: nothing harmed, nothing invented."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.nesting import MAX_DEPTH
from gateway.proxy.body import (
    parse_object,
    serialise,
    shape,
    with_responses,
)

JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON_VALUES))
def test_body_is_the_same_there_and_back(body: dict[str, Any]) -> None:
    raw = json.dumps(body).encode()
    parsed = parse_object(raw)
    assert parsed == body
    assert list(parsed) == list(body)
    assert json.loads(serialise(parsed)) == body


@pytest.mark.parametrize("number", ["18446744073709551616", "-9223372036854775809", "1" * 60])
def test_long_integers_stay_whole(number: str) -> None:
    raw = b'{"seed":' + number.encode() + b"}"
    assert serialise(parse_object(raw)) == raw


@pytest.mark.parametrize("size", [100, 10_000, 60_000])
def test_what_is_kept_takes_no_more_memory_than_it_has_bytes(size: int) -> None:
    body = {"messages": [{"role": "user", "content": "x" * size}]}
    tracemalloc.start()
    try:
        raw = serialise(body)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(raw) <= kept < len(raw) + 2000


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b'"x"', b"{", b'{"a":NaN}', b'{"a":1e400,"b":%d}' % 10**20]
)
def test_body_that_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_object(raw)


@given(
    st.lists(st.tuples(st.text(":a\\\u00e4", max_size=3), st.text(":a\\\u00e4")), min_size=1),
    st.booleans(),
    st.booleans(),
)
def test_a_key_given_twice_is_always_seen(
    pairs: list[tuple[str, str]], escape: bool, nested: bool
) -> None:
    def text(value: str) -> str:
        written = json.dumps(value, ensure_ascii=escape)
        return written.replace(":", "\\u003a") if escape else written

    raw = ", ".join(f"{text(key)}: {text(value)}" for key, value in pairs).join("{}")
    if nested:
        raw = f'{{"x": [{raw}]}}'
    if len({key for key, _ in pairs}) < len(pairs):
        with pytest.raises(BadRequest, match="given twice"):
            parse_object(raw.encode())
    else:
        parsed = parse_object(raw.encode())
        assert (parsed["x"][0] if nested else parsed) == dict(pairs)


@pytest.mark.parametrize("number", ["1", "1" * 30])
def test_half_a_character_is_refused_whatever_else_is_there(number: str) -> None:
    with pytest.raises(BadRequest, match="not valid JSON"):
        parse_object(b'{"n":%b,"a":["\\uD83d"]}' % number.encode())
    whole = parse_object(b'{"n":%b,"a":"\\uD83d\\ude00"}' % number.encode())
    assert whole["a"] == "\N{GRINNING FACE}"


NUMBERS = [b"1", b"1" * 40]  # of which the second takes another parser


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"k": ', b"}")])
@pytest.mark.parametrize("before", [b"", '"\u00e4": "%s", '.encode() % (b"[{" * 5000)])
def test_too_deep_a_body_is_refused(
    number: bytes, opening: bytes, closing: bytes, before: bytes, subtests: pytest.Subtests
) -> None:
    def nested(levels: int) -> bytes:
        inner = levels - 1
        return b"".join((b"{", before, b'"a": ', opening * inner, number, closing * inner, b"}"))

    for levels in (10, 255, MAX_DEPTH):  # orjson writes 254
        with subtests.test(f"{levels!r:.80}"):
            parsed = parse_object(nested(levels))
            assert serialise(parsed).replace(b" ", b"").count(opening.strip()) >= levels - 1
    for levels in (MAX_DEPTH + 1, 1000, 1025, 100_000):  # orjson reads 1024
        with subtests.test(f"{levels!r:.80}"):
            with pytest.raises(
                BadRequest, match=r"nested too deeply: at most 500 levels"
            ) as refused:
                parse_object(nested(levels))
            assert refused.value.code == "invalid_json"


def test_a_key_given_twice_is_seen_at_any_depth() -> None:
    inner = b'{"a": 1, "a": 2}'
    deep = MAX_DEPTH - 2
    with pytest.raises(BadRequest, match="given twice"):
        parse_object(b'{"a": %b%b%b}' % (b"[" * deep, inner, b"]" * deep))


def test_what_is_broken_and_shallow_is_said_to_be_broken() -> None:
    with pytest.raises(BadRequest, match="not valid JSON"):
        parse_object(b'{"a": "%b", "b": }' % (b"[" * 2000))


def test_responses_are_added_without_touching_the_rest(subtests: pytest.Subtests) -> None:
    answer = b'{ "choices":[{"message":{"content":"a\\u00e4"}}], "x":1.0e0 }\n'
    changed = with_responses(answer, orjson.loads(answer))
    assert orjson.loads(changed)["responses"] == "a\u00e4"
    assert changed.startswith(answer[: answer.rindex(b"}")])
    for other in (b'{"error":1}', b'{"choices":[]}', b'{"choices":[{"message":null}]}', b"[]"):
        with subtests.test(f"{other!r:.80}"):
            assert with_responses(other, orjson.loads(other)) == other
    empty = b'{"choices":[{"message":{"content":null}}]}'
    assert orjson.loads(with_responses(empty, orjson.loads(empty)))["responses"] == ""


def test_fixed_fields_are_put_over_the_body() -> None:
    body = {"a": 1, "b": {"x": 1, "y": {"z": 1}}, "c": {"x": 1}, "d": 4}
    shape(body, ("d", "absent"), {"a": 2, "b": {"x": 2, "y": {"w": 2}}, "c": 3, "e": {"n": None}})
    assert body == {
        "a": 2,
        "b": {"x": 2, "y": {"z": 1, "w": 2}},
        "c": 3,
        "e": {"n": None},
    }
    fixed = {"o": {"p": 1}}
    for _ in range(2):  # what is set is not changed by what clients send
        client: dict[str, Any] = {"o": {"q": 2}}
        shape(client, (), fixed)
        assert client == {"o": {"q": 2, "p": 1}}
    assert fixed == {"o": {"p": 1}}
