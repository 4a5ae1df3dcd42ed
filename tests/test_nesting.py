"""How deep a text is nested: as a parser would see it, whatever stands in its strings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import nesting
from gateway.nesting import MAX_DEPTH, nests_deeper

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.integers() | st.text('[]{}"\\\u00e4 '),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('[]{}"\\'), inner),
    max_leaves=30,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(VALUES, st.booleans(), st.integers(1, 40))
def test_it_counts_as_a_parser_does(value: Any, escape: bool, piece: int) -> None:
    raw = json.dumps(value, ensure_ascii=escape).encode()
    real = depth(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nesting, "PIECE", piece)  # so that every text is cut, anywhere
        assert not nests_deeper(raw, limit=real)
        assert real == 0 or nests_deeper(raw, limit=real - 1)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"[{\\"\\\\":[1,'])
def test_depth_of_an_unfinished_text_is_counted(opening: bytes) -> None:
    levels = opening.count(b":") or 1
    levels += opening.endswith(b"[1,")
    fits = opening * (MAX_DEPTH // levels)
    assert not nests_deeper(fits)
    assert nests_deeper(fits + opening)
    assert nests_deeper(opening * 100_000)


def test_brackets_in_strings_are_none() -> None:
    assert not nests_deeper(b'["' + b"[" * 200_000 + b'\\"' + b"{" * 200_000 + b'"]')
    assert not nests_deeper(b"[" + b"\\" * 200_000 + b'"' + b"]")
