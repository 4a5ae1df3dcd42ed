"""Models in Ollama's lists."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.models.gguf_header import Header
from gateway.models.local_model import LocalModel, Params
from gateway.models.model import Meta
from gateway.models.remote_model import RemoteModel
from gateway.ollama.models import Shown, capabilities, details, listed, running, shown, tagged

VALUES: dict[str, Any] = {
    "general.architecture": "llama",
    "general.name": "Meta Llama",
    "general.parameter_count": 8_030_261_248,
    "general.license": "mit",
    "llama.context_length": 131072,
    "llama.embedding_length": 4096,
    "llama.rope.scales": tuple(range(9)),
    "tokenizer.chat_template": "{% if tools %}{{ messages }}",
}
SPEC = LocalModel(name="llama3.2", params=Params(model="a.gguf", temperature=0.5))
MODEL = Shown(
    "llama3.2",
    SPEC,
    Header(VALUES, {}),
    size=2_019_393_189,
    modified=1_746_405_457.706,
    quantisation="Q4_K_M",
    abilities=("chat", "completion"),
    context=4096,
)


def test_one_is_listed_with_all_that_its_file_says() -> None:
    entry = listed(MODEL)
    assert entry["name"] == entry["model"] == "llama3.2:latest"
    assert entry["modified_at"] == "2025-05-05T00:37:37.706000Z"
    assert entry["size"] == 2_019_393_189
    assert len(entry["digest"]) == 64
    assert entry["details"] == {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "8.0B",
        "quantization_level": "Q4_K_M",
        "context_length": 4096,
        "embedding_length": 4096,
    }


def test_another_file_has_another_digest() -> None:
    assert MODEL.digest == replace(MODEL).digest
    others = [
        replace(MODEL, **change) for change in ({"size": 1}, {"modified": 2.0}, {"name": "b"})
    ]
    assert len({one.digest for one in (MODEL, *others)}) == 4


@pytest.mark.parametrize(
    ("count", "said"), [(137_000_000, "137.00M"), (70_553_706_496, "70.6B"), (1_500, "1.50K")]
)
def test_parameters_are_counted_as_people_do(count: int, said: str) -> None:
    header = Header({**VALUES, "general.parameter_count": count}, {})
    assert details(replace(MODEL, header=header))["parameter_size"] == said


def test_a_model_elsewhere_has_no_file() -> None:
    spec = RemoteModel(name="far", url=("http://box:1/v1",))
    made = details(replace(MODEL, spec=spec, header=None, quantisation=None, context=None))
    assert (made["format"], made["family"], made["families"]) == ("", "", None)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, ["completion", "tools"]),
        ({"lacks": frozenset({"tools"})}, ["completion"]),
        ({"abilities": ("chat", "completion", "vision")}, ["completion", "vision", "tools"]),
        ({"abilities": ("chat", "completion", "embeddings"), "reads_only": True}, ["embedding"]),
        ({"abilities": ("rerank",)}, []),
        (
            {"header": Header({"tokenizer.chat_template": "<think>"}, {})},
            ["completion", "thinking"],
        ),
        ({"header": Header({"tokenizer.ggml.fim_pre_token_id": 3}, {})}, ["completion", "insert"]),
        (
            {"spec": replace(SPEC, meta=Meta(capabilities=("chat", "tools"))), "header": None}
            | {"abilities": ("chat", "tools")},
            ["completion", "tools"],
        ),
    ],
)
def test_what_it_can_do_is_said_in_ollamas_words(change: dict[str, Any], wanted: list[str]) -> None:
    assert capabilities(replace(MODEL, **change)) == wanted


def test_one_is_shown() -> None:
    made = shown(MODEL)
    assert made["template"] == VALUES["tokenizer.chat_template"]
    assert made["license"] == "mit"
    assert made["parameters"].split() == ["temperature", "0.5"]
    assert "FROM llama3.2:latest" in made["modelfile"]
    assert made["model_info"] == {
        "general.architecture": "llama",
        "general.parameter_count": 8_030_261_248,
        "general.license": "mit",
        "llama.context_length": 4096,  # what a request gets, not what it was trained with
        "llama.embedding_length": 4096,
        "llama.rope.scales": [],
    }


def test_one_that_runs_says_until_when() -> None:
    made = running(MODEL, size=5, on_gpus=3, unload_in=300.0)
    assert (made["size"], made["size_vram"], made["context_length"]) == (5, 3, 4096)
    left = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
    assert 290 < left.total_seconds() <= 300
    ever = datetime.fromisoformat(
        running(MODEL, size=None, on_gpus=0, unload_in=None)["expires_at"]
    )
    assert ever.year > 2300


def test_a_name_has_a_tag() -> None:
    assert (tagged("m"), tagged("m:pirate"), tagged("a/b")) == (
        "m:latest",
        "m:pirate",
        "a/b:latest",
    )
