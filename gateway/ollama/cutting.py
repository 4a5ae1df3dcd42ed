"""Texts that are too long for a model of embeddings, cut at their end. Pure.

Ollama does that unless a request says ``"truncate": false``. How much is too much only llama-server
knows, which depends on the pooling of its model: it says so when it refuses a text. What looks
through a body is for :data:`gateway.workers.WORKERS`, which wants pairs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from gateway.proxy.body import JsonObject, serialise

_MOST: Final = re.compile(
    rb"current batch size: (\d{1,9})\b"
    rb"|available context size \((\d{1,9}) tokens\)"
    rb"|the context has (\d{1,9})\b"
)
#: Tokens that a model may put around each text; a token is at least one byte of it.
_AROUND: Final = 8


def most_tokens(refusal: bytes) -> int | None:
    """Return how many tokens a text may have, as the body of an error answer tells; ``None``:
    it doesn't.
    """
    found = _MOST.search(refusal)
    return int(next(filter(None, found.groups()))) if found is not None else None


def long_texts(body: bytes, most: int) -> tuple[dict[int, str], None]:
    """Return the texts in a body of /v1/embeddings that may have more than ``most`` tokens, by
    their place.
    """
    texts: list[str] = orjson.loads(body)["input"]
    fits = most - _AROUND
    return {at: text for at, text in enumerate(texts) if len(text.encode()) > fits}, None


def question(text: str, *, whole: bool) -> bytes:
    """Return the body by which /tokenize tells the tokens of ``text``; ``whole``: with those that
    the model puts around it.
    """
    return serialise({"content": text, "add_special": whole})


def cut(whole: Sequence[int], plain: Sequence[int], most: int) -> list[int]:
    """Return the first ``most`` of the tokens ``whole``, of which those around ``plain``, the text
    alone, stay.
    """
    over, size = len(whole) - most, len(plain)
    if over <= 0:
        return list(whole)
    for at in range(len(whole) - size + 1):
        if size > over and list(whole[at : at + size]) == list(plain):
            return [*whole[: at + size - over], *whole[at + size :]]
    return list(whole[:most])


def tokens_in(answer: bytes) -> tuple[list[int], None]:
    """Return the tokens in an answer of /tokenize."""
    told: Any = orjson.loads(answer)
    return list(told["tokens"]), None


def with_tokens(body: bytes, places: Mapping[int, list[int]]) -> tuple[None, bytes]:
    """Return ``body`` with tokens instead of the texts at ``places``."""
    made: JsonObject = orjson.loads(body)
    made["input"] = [places.get(at, text) for at, text in enumerate(made["input"])]
    return None, serialise(made)
