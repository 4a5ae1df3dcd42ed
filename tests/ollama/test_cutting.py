"""Texts that are too long to be embedded, cut at their end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import BadRequest
from gateway.ollama.cutting import cut, long_texts, most_tokens, with_tokens
from gateway.ollama.requests import translate

AROUND = [101, 7, 8, 9, 7, 102]


@pytest.mark.parametrize(
    ("told", "most"),
    [
        ("input (9 tokens) is too large to process. increase the physical batch size "
         "(current batch size: 512)", 512),
        ("request (9 tokens) exceeds the available context size (2048 tokens), try it", 2048),
        ("it is too long (900 tokens, and the context has 256)", 256),
        ("model not found", None),
    ],
)  # fmt: skip
def test_most_tokens_are_read_from_llama_servers_own_words(told: str, most: int | None) -> None:
    assert most_tokens(json.dumps({"error": told}).encode()) == most


@pytest.mark.parametrize(
    ("whole", "plain", "most", "expected"),
    [
        (AROUND, [7, 8, 9, 7], 6, AROUND),
        (AROUND, [7, 8, 9, 7], 4, [101, 7, 8, 102]),
        (AROUND, [7, 8, 9, 7], 3, [101, 7, 102]),
        ([1, 5, 5, 5, 5], [5, 5, 5, 5], 3, [1, 5, 5]),
        ([5, 6, 7], [5, 6, 7], 2, [5, 6]),
        (AROUND, [3, 3], 4, [101, 7, 8, 9]),  # a text that is written otherwise within
        (AROUND, [7, 8, 9, 7], 1, [101]),  # nothing of it would stay
    ],
)
def test_tokens_around_a_text_stay(
    whole: list[int], plain: list[int], most: int, expected: list[int]
) -> None:
    assert cut(whole, plain, most) == expected


def test_only_texts_that_may_be_too_long_are_asked_about() -> None:
    body = json.dumps({"input": ["short", "x" * 600, "ä" * 253], "model": "e"}).encode()
    texts, _ = long_texts(body, 512)
    assert list(texts) == [1, 2]
    _, made = with_tokens(body, {1: [1, 2]})
    assert json.loads(made) == {"input": ["short", [1, 2], "ä" * 253], "model": "e"}


@pytest.mark.parametrize(("said", "truncate"), [({}, True), ({"truncate": False}, False)])
def test_texts_are_cut_unless_that_is_forbidden(said: dict[str, Any], truncate: bool) -> None:
    asked, body = translate(json.dumps({"model": "e", "input": "x", **said}).encode(), "embed", 99)
    assert asked.truncate is truncate
    assert "truncate" not in json.loads(body)


def test_truncate_is_a_boolean() -> None:
    with pytest.raises(BadRequest, match="truncate must be a boolean"):
        translate(b'{"model": "e", "input": "x", "truncate": "yes"}', "embed", 99)
