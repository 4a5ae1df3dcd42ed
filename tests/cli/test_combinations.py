"""`llm-gateway check` warns of what fits badly together, and a real model then refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from tests.harness import DEMO_GGUF, MakeGateway, project


def warned(tmp_path: Path, capsys: pytest.CaptureFixture[str], entry: dict[str, Any]) -> list[str]:
    """The warnings about one model, whose files lie in the folder LLMs."""
    root = tmp_path / "project"
    shutil.rmtree(root, ignore_errors=True)
    config = project(root, {"m": entry}, llm_storage=str(tmp_path / "LLMs"))
    assert main(["check", "--config", str(config)]) == 0
    lines = capsys.readouterr().err.splitlines()
    return [line.removeprefix("warning: ") for line in lines if line.startswith("warning: m.")]


@pytest.fixture
def storage(tmp_path: Path, parrot_model: Path, minilm_model: Path) -> Path:
    folder = tmp_path / "LLMs"
    (folder / "maker/parrot").mkdir(parents=True)
    shutil.copy(parrot_model, folder / "parrot.gguf")
    shutil.copy(parrot_model, folder / "maker/parrot/parrot.Q4.gguf")
    shutil.copy(minilm_model, folder / "minilm.gguf")
    return folder


PARROT: dict[str, Any] = {"params": {"model": "parrot.gguf"}}
MINILM: dict[str, Any] = {"params": {"model": "minilm.gguf"}}
DEMO: dict[str, Any] = {"params": {"model": DEMO_GGUF}}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (PARROT, None),
        ({**PARROT, "template": "zephyr"}, "m.template: 'zephyr' switches tools off"),
        ({**PARROT, "template": "zephyr", "extraArgs": ["--jinja"]}, None),
        ({**DEMO, "template": "zephyr"}, None),  # its own takes no tools either
        ({**DEMO, "embeddings": True}, "m.embeddings: the file names no pooling"),
        ({**DEMO, "embeddings": True, "extraArgs": ["--pooling", "mean"]}, None),
        ({**DEMO, "reranking": True}, "m.reranking: the file is none for rerank"),
        (MINILM, "m.embeddings: the file is a model for embeddings or rerank (bert)"),
        ({**MINILM, "embeddings": True}, None),
        ({**MINILM, "reranking": True}, None),
        ({**MINILM, "embeddings": True, "reranking": True}, "m.embeddings: has no effect beside"),
    ],
)
def test_every_combination_of_options_is_understood_or_refused(
    tmp_path: Path,
    storage: Path,
    capsys: pytest.CaptureFixture[str],
    entry: dict[str, Any],
    said: str | None,
) -> None:
    lines = warned(tmp_path, capsys, entry)
    assert len(lines) == (said is not None), lines
    if said is not None:
        assert lines[0].startswith(said)


def test_projector_beside_the_model_is_hinted_at(
    tmp_path: Path, storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beside = {"params": {"model": "maker\\parrot\\parrot.Q4.gguf"}}
    assert not warned(tmp_path, capsys, beside)
    (storage / "maker/parrot/mmproj-parrot-f16.gguf").touch()
    (storage / "mmproj-other-f16.gguf").touch()
    (line,) = warned(tmp_path, capsys, beside)
    assert line.startswith("m.mmproj: is missing")
    assert "mmproj-parrot-f16.gguf" in line
    assert not warned(tmp_path, capsys, PARROT)  # there, whose it is can't be told


async def test_what_is_warned_of_happens(make_gateway: MakeGateway) -> None:
    models = {"m": {**DEMO, "embeddings": True}}
    async with make_gateway(models, llama_server="auto") as running:
        status, answer = await running.json(
            "POST", "/v1/embeddings", json={"model": "m", "input": "x"}
        )
        assert status == 400
        assert answer["error"]["code"] == "unsupported_by_model"
        assert '"extraArgs": ["--pooling", "mean"]' in answer["error"]["message"]
