"""What models.json says that a model can't do."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.models.catalog import parse_entry
from gateway.proxy.ability import EMBEDDINGS, MEDIA, RERANKING, TOOLS, lacks

EVERYTHING = {MEDIA, EMBEDDINGS, RERANKING}


@pytest.mark.parametrize(
    ("entry", "lacking"),
    [
        ({}, EVERYTHING),
        ({"template": "zephyr"}, {*EVERYTHING, TOOLS}),
        ({"template": "zephyr", "extraArgs": ["--jinja"]}, EVERYTHING),
        ({"template": "zephyr", "env": {"LLAMA_ARG_JINJA": "1"}}, EVERYTHING),
        ({"mmproj": "p.gguf"}, {EMBEDDINGS, RERANKING}),
        ({"extraArgs": ["--mmproj", "p.gguf"]}, {EMBEDDINGS, RERANKING}),
        ({"extraArgs": ["--mmproj_url=x"]}, {EMBEDDINGS, RERANKING}),
        ({"embeddings": True}, {MEDIA, RERANKING}),
        ({"extraArgs": ["--embedding"]}, {MEDIA, RERANKING}),
        ({"env": {"LLAMA_ARG_EMBEDDINGS": "1"}}, {MEDIA, RERANKING}),
        ({"reranking": True}, {MEDIA}),
        ({"extraArgs": ["--embeddings", "--pooling", "rank"]}, {MEDIA}),
        ({"meta": {"capabilities": ["vision", "rerank"]}}, {EMBEDDINGS}),
        ({"template": "zephyr", "meta": {"capabilities": ["tools"]}}, EVERYTHING),
        ({"url": ["http://127.0.0.1:9"]}, set()),
    ],
)
def test_a_model_that_lacks_an_ability_says_so(entry: dict[str, Any], lacking: set[str]) -> None:
    params = {} if "url" in entry else {"params": {"model": "m.gguf"}}
    found = lacks(parse_entry("m", {**params, **entry}))
    assert set(found) == lacking
    for why in found.values():
        assert why.startswith("the model 'm' ")
        assert "models.json" in why
