"""What is found below llm_storage: each model once, with what its header says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gateway.models.paths import resolve_model_path
from gateway.models.storage import Found, Task, scan
from tests.gguf_file import Kind, Tensor, entry, write_gguf
from tests.harness import DEMO_GGUF
from tests.minilm_model import wheel, write_minilm_model
from tests.tiny_model import write_tiny_model


def write(file: Path, *extra: bytes, width: int = 64, architecture: str = "llama") -> Path:
    """A file that is whole, with a header like a model's."""
    file.parent.mkdir(parents=True, exist_ok=True)
    header = [
        entry("general.architecture", Kind.STRING, architecture),
        entry(f"{architecture}.context_length", Kind.U32, 8192),
        entry(f"{architecture}.embedding_length", Kind.U32, width),
        *extra,
    ]
    write_gguf(file, header, [Tensor("a", (8,), bytes(32))])
    return file


def projector(file: Path, width: int = 64, **has: bool) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    header = [
        entry("general.architecture", Kind.STRING, "clip"),
        entry("clip.vision.projection_dim", Kind.U32, width),
        *(entry(f"clip.has_{name}_encoder", Kind.BOOL, yes) for name, yes in has.items()),
    ]
    write_gguf(file, header, [Tensor("a", (8,), bytes(32))])
    return file


def by_name(found: list[Found]) -> dict[str, Found]:
    return {one.reference: one for one in found}


def test_real_models_are_recognised(tmp_path: Path) -> None:
    demo = resolve_model_path(DEMO_GGUF, tmp_path)
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub/demo.gguf").symlink_to(demo)
    write_minilm_model(tmp_path / "minilm-f32.gguf", wheel())
    write_tiny_model(tmp_path / "tiny.gguf")
    found = by_name(scan(tmp_path))
    demo_found = found["hub/demo.gguf"]
    assert (demo_found.architecture, demo_found.quantisation) == ("llama", "Q4_1")
    assert (demo_found.task, demo_found.trained, demo_found.layers) == (Task.CHAT, 8192, 30)
    assert demo_found.size == demo.stat().st_size
    assert demo_found.template
    assert found["minilm-f32.gguf"].task is Task.EMBEDDING
    assert found["minilm-f32.gguf"].quantisation == "F32"
    assert all(one.problem is None for one in found.values())


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [
        ("a-Q4_K_M", 3, "Q4_1"),  # renamed by somebody
        ("a-Q4_K_M", 14, "Q4_K_S"),
        ("a", 15, "Q4_K_M"),
        ("a-UD-Q4_K_XL", 15, "UD-Q4_K_XL"),  # more than the header has a number for
        ("a-UD-Q4_K_XL", 7, "Q8_0"),
        ("a-FP16", 1, "F16"),
        ("a-Q4_0_4_4", 33, "Q4_0_4_4"),  # a number that is none any more
        ("a-Q4_K_M", None, "Q4_K_M"),
    ],
)
def test_quantisation_is_told_by_header_or_name(
    tmp_path: Path, name: str, number: int | None, expected: str
) -> None:
    said = [] if number is None else [entry("general.file_type", Kind.U32, number)]
    write(tmp_path / f"{name}.gguf", *said)
    (found,) = scan(tmp_path)
    assert found.quantisation == expected


def test_a_split_model_is_one(tmp_path: Path) -> None:
    count = entry("split.count", Kind.U32, 2)
    first = write(tmp_path / "big-Q4_K_M-00001-of-00002.gguf", count)
    shutil.copy(first, tmp_path / "big-Q4_K_M-00002-of-00002.gguf")
    shutil.copy(first, tmp_path / "half-00002-of-00002.gguf")
    found = by_name(scan(tmp_path))
    assert list(found) == ["big-Q4_K_M-00001-of-00002.gguf", "half-00002-of-00002.gguf"]
    whole, half = found.values()
    assert (whole.parts, whole.size) == (2, 2 * first.stat().st_size)
    assert (whole.quantisation, whole.problem) == ("Q4_K_M", None)
    assert half.problem is not None
    assert "part 2 of 2" in half.problem


def test_what_cannot_be_loaded_is_there_with_the_reason(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    whole = write(tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[:-20])
    (tmp_path / "header.gguf").write_bytes(whole[:40])
    (tmp_path / "page.gguf").write_bytes(b"<html>")
    (tmp_path / "empty.gguf").write_bytes(b"")
    write(tmp_path / "matrix.gguf", entry("general.type", Kind.STRING, "imatrix"))
    (tmp_path / "gone.gguf").symlink_to(tmp_path / "nowhere")
    found = by_name(scan(tmp_path))
    for name, reason in {
        "cut.gguf": "cut off, its download did not finish",
        "header.gguf": "does not end",
        "page.gguf": "web page",
        "empty.gguf": "empty",
        "matrix.gguf": "no model (general.type: imatrix)",
    }.items():
        with subtests.test(f"{name!r:.80}"):
            problem = found.pop(name).problem
            assert problem is not None, name
            assert reason in problem
    assert list(found) == ["whole.gguf"]
    assert found["whole.gguf"].problem is None


def test_each_file_is_found_once(tmp_path: Path) -> None:
    write(tmp_path / "a/one.gguf")
    (tmp_path / "a/two.gguf").hardlink_to(tmp_path / "a/one.gguf")
    (tmp_path / "a/round").symlink_to(tmp_path)
    write(tmp_path / ".cache/three.gguf")
    write(tmp_path / "b/FOUR.GGUF")
    assert list(by_name(scan(tmp_path))) == ["a/one.gguf", "b/FOUR.GGUF"]
    left = scan(tmp_path, leave_out=[tmp_path / "a/two.gguf"])
    assert list(by_name(left)) == ["b/FOUR.GGUF"]
    assert list(by_name(scan(tmp_path / "b", root=tmp_path))) == ["b/FOUR.GGUF"]


def test_a_projector_stands_with_its_model(tmp_path: Path) -> None:
    for name in ("vl-Q4_K_M.gguf", "vl-Q8_0.gguf"):
        write(tmp_path / "vl" / name)
    for name in ("mmproj-F32.gguf", "mmproj-F16.gguf"):
        projector(tmp_path / "vl" / name, vision=True, audio=True)
    write(tmp_path / "other/text.gguf", width=96)
    projector(tmp_path / "other/mmproj.gguf", width=64)
    for name in ("gemma-4b", "qwen-7b"):
        write(tmp_path / f"{name}-Q4_0.gguf")
    projector(tmp_path / "mmproj-gemma-4b-f16.gguf", vision=True)
    found = by_name(scan(tmp_path))
    for name in ("vl/vl-Q4_K_M.gguf", "vl/vl-Q8_0.gguf"):
        assert found[name].projector == "vl/mmproj-F16.gguf"
        assert found[name].abilities == ("vision", "audio")
    assert found["other/text.gguf"].projector is None  # a vector of another length
    assert found["gemma-4b-Q4_0.gguf"].projector == "mmproj-gemma-4b-f16.gguf"
    assert found["qwen-7b-Q4_0.gguf"].projector is None


@pytest.mark.parametrize(
    ("template", "tools"), [("{{ messages }}", False), ("{% if tools %}{{ tools }}", True)]
)
def test_tools_stand_in_the_template(tmp_path: Path, template: str, tools: bool) -> None:
    write(tmp_path / "m.gguf", entry("tokenizer.chat_template", Kind.STRING, template))
    (found,) = scan(tmp_path)
    assert (found.template, found.tools) == (True, tools)


@pytest.mark.parametrize(("pooling", "task"), [(3, Task.EMBEDDING), (4, Task.RERANK)])
def test_what_pools_writes_no_text(tmp_path: Path, pooling: int, task: Task) -> None:
    write(tmp_path / "m.gguf", entry("qwen3.pooling_type", Kind.U32, pooling), architecture="qwen3")
    (found,) = scan(tmp_path)
    assert (found.task, found.pooled) == (task, True)
