"""The conversations that clients of /api/generate keep as integers."""

from __future__ import annotations

import random
import zlib
from typing import Any

import pytest

from gateway.errors import BadRequest
from gateway.ollama.context import pack, unpack

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Wie heißt der Nil? \u0000 \U0001f40a"},
    {"role": "assistant", "content": ""},
]


@pytest.mark.parametrize("talk", [TALK, TALK[:1], [], [{"role": "user", "content": "x" * 100_000}]])
def test_a_conversation_comes_back_as_it_was(talk: list[dict[str, Any]]) -> None:
    packed = pack(talk)
    assert packed is not None
    assert all(type(number) is int and abs(number) < 2**31 for number in packed)  # as in Go
    assert unpack(packed) == talk


def test_no_context_is_no_conversation() -> None:
    assert unpack(None) == unpack([]) == []


def test_one_that_is_too_long_is_not_kept() -> None:
    assert pack([{"role": "user", "content": "x" * (4 * 2**20)}]) is None


def bomb() -> list[int]:
    """Little that becomes much."""
    packed = pack([{"role": "user", "content": "x"}])
    assert packed is not None
    data = zlib.compress(b'[["user","' + b"x" * 2**26 + b'"]]')
    whole = len(data).to_bytes(4, "big") + data
    return [
        packed[0],
        *(
            int.from_bytes(whole[at : at + 3].ljust(3, b"\0"), "big")
            for at in range(0, len(whole), 3)
        ),
    ]


@pytest.mark.parametrize(
    "context",
    [
        [1, 2, 3],
        ["a"],
        [None],
        "text",
        {"a": 1},
        [-5000013],
        [-5000013, -1],
        [-5000013, 2**30],
        bomb(),
    ],
)
def test_another_servers_context_is_refused(context: Any) -> None:
    with pytest.raises(BadRequest, match="context is none of this server"):
        unpack(context)


def test_damaged_contexts_are_refused_or_read() -> None:
    packed, chance = pack(TALK), random.Random(5)
    assert packed is not None
    for _ in range(500):
        damaged = list(packed)
        damaged[chance.randrange(1, len(damaged))] = chance.randrange(2**24)
        try:
            unpack(damaged)
        except BadRequest:
            continue
        # What it was filled up with at its end may be anything.
        assert unpack(damaged) == TALK
