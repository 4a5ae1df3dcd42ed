"""What llama-server's slots say of a request that was hung up on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.cut_off import at_work, written


def slot(read: int, wrote: int, *, cached: int = 0, busy: bool = True) -> dict[str, Any]:
    return {
        "is_processing": busy,
        "n_prompt_tokens_processed": read,
        "n_prompt_tokens_cache": cached,
        "next_token": [{"n_decoded": wrote}],
    }


@pytest.mark.parametrize(
    ("slots", "answers", "tokens"),
    [
        ([], 1, 0),
        ([slot(100, 7)], 1, 7),
        ([slot(1, 7, cached=98)], 1, 7),
        ([slot(100, 7, busy=False), slot(500, 9), {"is_processing": False}], 1, 0),
        ([slot(500, 900), slot(100, 7), slot(101, 5), slot(99, 3)], 1, 7),
        ([slot(102, 900), slot(100, 7), slot(100, 9)], 1, 9),  # who is next to it
        ([slot(500, 900), slot(100, 7), slot(101, 5), slot(99, 3)], 2, 12),
        ([{**slot(100, 0), "next_token": {"n_decoded": 4}}], 1, 4),  # older builds
        ([{**slot(100, 0), "next_token": []}, 5, None], 1, 0),
    ],
)
def test_tokens_of_slots_at_such_a_prompt_are_counted(
    slots: list[Any], answers: int, tokens: int
) -> None:
    assert sum(at_work(json.dumps(slots).encode(), 100, answers).values()) == tokens


def test_tasks_are_told_apart_by_their_numbers() -> None:
    said = json.dumps([{**slot(100, 7), "id_task": 3}, {**slot(9, 5), "id_task": 8}]).encode()
    assert at_work(said, 100, 2) == {3: 7}
    assert written(said) == {3: 7, 8: 5}


@given(st.binary(max_size=50))
def test_any_bytes_are_taken_as_no_tasks(said: bytes) -> None:
    assert at_work(said, 0, 1) == {}
    assert written(b'{"error": {}}') == {}
