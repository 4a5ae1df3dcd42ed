"""GPUs that there were, and are not any more: what is remembered, and what is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.backends.devices import gpu
from gateway.backends.gpus_seen import GpusSeen
from gateway.backends.machine import Machine
from gateway.backends.ram import ram_device

GIB = 2**30


def machine(*names: str) -> Machine:
    gpus = tuple(gpu(f"CUDA{i}", name, 24 * GIB, 24 * GIB) for i, name in enumerate(names))
    ram = ram_device(Path("/"))
    return Machine(gpus or (ram,), "a test", bool(gpus), True, ram if gpus else None)


def test_one_that_goes_is_missed_until_it_is_back(tmp_path: Path) -> None:
    seen = GpusSeen(tmp_path / "gpus.json", ["llama-server"])
    assert seen.compare(machine("A", "B")) is None
    said = seen.compare(machine("A"))
    assert said is not None
    assert said.startswith("the GPU B is gone")
    assert "models have the others" in said
    said = GpusSeen(tmp_path / "gpus.json", ["llama-server"]).compare(machine())
    assert said is not None
    assert "GPUs are gone: A, B" in said
    assert "RAM" in said
    assert "gpus.json" in said
    assert seen.compare(machine("A", "B")) is None


def test_one_that_is_hidden_on_purpose_is_not_missed(tmp_path: Path) -> None:
    file = tmp_path / "gpus.json"
    GpusSeen(file, ["x"]).compare(machine("A", "B"))
    hidden = GpusSeen(file, ["x"], {"CUDA_VISIBLE_DEVICES": "0", "PATH": "/"})
    assert hidden.compare(machine("A")) is None
    assert "the GPU A is gone" in (hidden.compare(machine()) or "")


def test_two_of_a_kind_are_two(tmp_path: Path) -> None:
    seen = GpusSeen(tmp_path / "gpus.json", ["x"])
    seen.compare(machine("A", "A"))
    assert "the GPU A is gone" in (seen.compare(machine("A")) or "")


def test_another_card_in_its_place_is_not_missed(tmp_path: Path) -> None:
    seen = GpusSeen(tmp_path / "gpus.json", ["x"])
    seen.compare(machine("old"))
    assert seen.compare(machine("new")) is None
    assert "the GPU new is gone" in (seen.compare(machine()) or "")


def test_without_a_gpu_nothing_is_written_or_missed(tmp_path: Path) -> None:
    seen = GpusSeen(tmp_path / "gpus.json", ["x"])
    assert seen.compare(machine()) is None
    assert list(tmp_path.iterdir()) == []


def test_another_llama_server_may_use_other_gpus(tmp_path: Path) -> None:
    GpusSeen(tmp_path / "gpus.json", ["one"]).compare(machine("A"))
    assert GpusSeen(tmp_path / "gpus.json", ["two"]).compare(machine()) is None
    assert "gone" in (GpusSeen(tmp_path / "gpus.json", ["one"]).compare(machine()) or "")


def test_check_only_looks(tmp_path: Path) -> None:
    file = tmp_path / "gpus.json"
    assert GpusSeen(file, ["x"], remember=False).compare(machine("A")) is None
    assert not file.exists()


def test_a_broken_file_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, subtests: pytest.Subtests
) -> None:
    file = tmp_path / "gpus.json"
    for text in ("{", "[]", '{"program": ["x"]}', '{"program": ["x"], "gpus": 5}'):
        with subtests.test(f"{text!r:.80}"):
            file.write_text(text)
            assert GpusSeen(file, ["x"]).compare(machine()) is None
    assert "gpus.json cannot be read" in caplog.text
    assert GpusSeen(file, ["x"]).compare(machine("A")) is None
    assert "gone" in (GpusSeen(file, ["x"]).compare(machine()) or "")


def test_a_folder_that_cannot_be_written_to_costs_only_that(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen = GpusSeen(tmp_path / "nowhere" / "gpus.json", ["x"])
    assert seen.compare(machine("A")) is None
    assert "cannot be written" in caplog.text
