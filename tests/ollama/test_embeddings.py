"""Embeddings in Ollama's shape, whole and in pieces of any size."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest

from gateway.ollama.answers import Clock
from gateway.ollama.embeddings import Vectors

VECTORS = [[0.25, -1e-05, 3.0], [0.0, 1.0, -2.5], [1.0, 2.0, 2.0]]


def answer(vectors: list[list[float]], **dump: Any) -> bytes:
    """As llama-server has it, and, with blanks, as others do."""
    data = [{"embedding": v, "index": i, "object": "embedding"} for i, v in enumerate(vectors)]
    usage = {"prompt_tokens": 12, "total_tokens": 12}
    return json.dumps(
        {"model": "x", "object": "list", "usage": usage, "data": data}, **dump
    ).encode()


def pieces(made: Vectors, data: bytes, seed: int) -> bytes:
    chance, at, found = random.Random(seed), 0, b""
    while at < len(data):
        size = chance.randrange(1, 60)
        found += made.feed(data[at : at + size])
        at += size
    return found + made.rest()


@pytest.mark.parametrize("dump", [{}, {"separators": (",", ":")}, {"indent": 1}])
def test_every_vector_comes_in_its_place(dump: dict[str, Any]) -> None:
    for count in range(len(VECTORS) + 1):
        data = answer(VECTORS[:count], **dump)
        for seed in range(20):
            made = json.loads(pieces(Vectors("m", Clock(loading=lambda: 0.5)), data, seed))
            assert made["embeddings"] == VECTORS[:count]
            assert (made["model"], made["prompt_eval_count"]) == ("m", 12)
            assert made["load_duration"] == 500_000_000
            assert made["total_duration"] > 0


def test_the_tokens_may_be_told_at_the_end() -> None:
    told = b'{"data":[{"embedding":[1.0]}],"usage":{"prompt_tokens":1234567,"total_tokens":9}}'
    for seed in range(60):
        assert json.loads(pieces(Vectors("m", Clock()), told, seed))["prompt_eval_count"] == 1234567


def test_fewer_dimensions_are_of_length_one_again() -> None:
    made = json.loads(Vectors("m", Clock(), 2).whole(answer(VECTORS), None))
    assert all(len(vector) == 2 for vector in made["embeddings"])
    assert all(math.hypot(*vector) == pytest.approx(1) for vector in made["embeddings"])
    assert made["embeddings"][1] == [0, 1]
    assert json.loads(Vectors("m", Clock(), 9).whole(answer([[0.0, 0.0]]), None))["embeddings"] == [
        [0, 0]
    ]


def test_the_older_route_has_one_vector_alone() -> None:
    assert json.loads(Vectors("m", Clock(), alone=True).whole(answer(VECTORS), None)) == {
        "embedding": VECTORS[0]
    }
    assert json.loads(Vectors("m", Clock(), alone=True).rest()) == {"embedding": []}
