"""Embeddings and rerank of a real embedding model, by OpenAI's client and plain requests."""

from __future__ import annotations

import base64
import json
import operator
import struct
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.harness import MakeGateway, Running
from tests.minilm_model import CONTEXT, WIDTH

TEXTS = ["A cat sleeps on the sofa.", "A kitten naps on the couch.", "The court fined the bank."]
RANKED = {"query": "What is a panda?", "documents": ["a bear", "hi", "It eats bamboo."]}


@pytest.fixture
async def running(make_gateway: MakeGateway, minilm_model: Path) -> AsyncIterator[Running]:
    """Two models out of one file: nothing about pooling in models.json, the file says it."""
    entry = {"params": {"model": str(minilm_model), "threads": 1}}
    models = {
        "embed": {**entry, "embeddings": True, "personalities": {"pirate": "Arr."}},
        "rerank": {**entry, "reranking": True},
    }
    async with make_gateway(models, llama_server="auto") as running:
        yield running


async def direct(running: Running, model: str, path: str, body: Any) -> Any:
    async with running.directly(model, path, body) as response:
        return response.status, await response.json()


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Of vectors of length 1, as these are."""
    return sum(map(operator.mul, one, other))


async def test_embeddings_come_as_the_model_makes_them(
    running: Running, subtests: pytest.Subtests
) -> None:
    async with running.openai() as client:
        # The client asks for base64 by itself and decodes it.
        answer = await client.embeddings.create(model="embed", input=TEXTS)
        vectors = [item.embedding for item in answer.data]
        assert [len(vector) for vector in vectors] == [WIDTH] * 3
        assert [item.index for item in answer.data] == [0, 1, 2]
        assert answer.usage.prompt_tokens > 0
        assert cosine(vectors[0], vectors[0]) == pytest.approx(1)
        assert cosine(vectors[0], vectors[1]) > 0.6 > 0.3 > cosine(vectors[0], vectors[2])
        plain = {"input": TEXTS, "encoding_format": "float"}
        _, told = await direct(running, "embed", "/v1/embeddings", plain)
        for vector, item in zip(vectors, told["data"], strict=True):
            assert vector == pytest.approx(item["embedding"], abs=1e-6)
        # A personality is no part of what is embedded.
        floats = await client.embeddings.create(
            model="embed:pirate", input=TEXTS[0], encoding_format="float"
        )
        assert floats.data[0].embedding == pytest.approx(vectors[0], abs=1e-6)
        packed = await client.embeddings.with_raw_response.create(
            model="embed", input=TEXTS[0], encoding_format="base64"
        )
        raw = base64.b64decode(json.loads(packed.content)["data"][0]["embedding"])
        assert struct.unpack(f"<{WIDTH}f", raw) == pytest.approx(vectors[0], abs=1e-6)
        with pytest.raises(openai.BadRequestError, match="only reads text"):
            await client.chat.completions.create(
                model="embed", messages=[{"role": "user", "content": "hi"}]
            )
    for path in ("/embedding", "/embeddings", "/v1/embeddings"):
        with subtests.test(f"{path!r:.80}"):
            body = {"model": "embed", "content": TEXTS[0], "input": TEXTS[0]}
            assert await running.json("POST", path, json=body) == await direct(
                running, "embed", path, body
            )


async def test_rerank_puts_the_nearest_first(running: Running, subtests: pytest.Subtests) -> None:
    for path in ("/rerank", "/reranking", "/v1/rerank", "/v1/reranking"):
        with subtests.test(f"{path!r:.80}"):
            body = {"model": "rerank", **RANKED, "top_n": 2}
            status, answer = await running.json("POST", path, json=body)
            assert (status, answer) == await direct(running, "rerank", path, body)
            assert status == 200
            assert answer["model"] == "rerank"
            assert len(answer["results"]) == 2
            scores = [result["relevance_score"] for result in answer["results"]]
            assert scores == sorted(scores, reverse=True)
            assert answer["usage"]["prompt_tokens"] > 0
    body = {"model": "embed", **RANKED}
    status, answer = await running.json("POST", "/v1/rerank", json=body)
    assert status == 400
    assert '"reranking": true' in answer["error"]["message"]


async def test_what_they_can_is_listed(running: Running) -> None:
    for name in ("embed", "rerank"):
        await running.gateway.scheduler.load(name)
    _, listed = await running.json("GET", "/v1/models")
    entries = {entry["id"]: entry for entry in listed["data"]}
    for name, capability in (("embed", "embeddings"), ("rerank", "rerank")):
        assert capability in entries[name]["capabilities"]
        assert entries[name]["meta"]["n_embd"] == WIDTH
        assert entries[name]["context_size"] == CONTEXT


async def test_too_long_is_a_400_that_is_not_sent_again(running: Running) -> None:
    """llama-server says 500, at which OpenAI's client would try twice more."""
    long = "word " * 600
    async with running.openai(max_retries=2) as client:
        with pytest.raises(openai.BadRequestError, match=r"602 tokens.*512") as caught:
            await client.embeddings.create(model="embed", input=[TEXTS[0], long])
        assert caught.value.code == "context_length_exceeded"
    for path, model, more in (
        ("/embedding", "embed", {"content": long}),
        ("/v1/rerank", "rerank", {"query": "x", "documents": [long]}),
    ):
        status, answer = await running.json("POST", path, json={"model": model, **more})
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
        assert "512" in answer["error"]["message"]
