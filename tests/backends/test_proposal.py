"""Entries that are proposed for files: as much as fits the machine, and names that are free."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.backends.devices import Device
from gateway.backends.machine import Machine
from gateway.backends.proposal import Proposal, propose
from gateway.models.catalog import parse_entry
from gateway.models.storage import scan
from tests.gguf_file import Kind, Tensor, entry, write_gguf

MIB = 2**20
RAM = Device("RAM", "RAM", 8 * 2**30)


def machine(budget: int, *, gpu: bool) -> Machine:
    device = Device("GPU0" if gpu else "RAM", "", budget)
    return Machine((device,), "test", gpu, ram=RAM if gpu else None)


def write(
    file: Path, *, weights: int = 64 * MIB, context: int = 131_072, kind: str = "llama"
) -> None:
    """Each token of context takes 64 KiB in it: 16 layers of 2 KiB for keys, 2 KiB for values."""
    header = [
        entry("general.architecture", Kind.STRING, kind),
        entry(f"{kind}.block_count", Kind.U32, 16),
        entry(f"{kind}.context_length", Kind.U32, context),
        entry(f"{kind}.embedding_length", Kind.U32, 1024),
        entry(f"{kind}.attention.head_count", Kind.U32, 8),
    ]
    if kind == "bert":
        header.append(entry("bert.attention.causal", Kind.BOOL, False))
        header.append(entry("bert.pooling_type", Kind.U32, 1))
    write_gguf(file, header, [Tensor("a", (weights // 4,), bytes(weights))])


def proposed(folder: Path, on: Machine, taken: frozenset[str] = frozenset()) -> list[Proposal]:
    proposals = list(propose(scan(folder), on, folder, taken))
    for one in proposals:
        parse_entry(one.name, one.entry)
    return proposals


def test_proposal_has_as_much_context_as_fits(tmp_path: Path, subtests: pytest.Subtests) -> None:
    write(tmp_path / "m.gguf")
    for budget, context in ((16 * 2**30, 131_072), (6 * 2**30, 65_536), (2 * 2**30, 16_384)):
        with subtests.test(f"{budget!r:.80}"):
            (one,) = proposed(tmp_path, machine(budget, gpu=True))
            assert one.entry["params"]["ctxSize"] == context, budget
            assert one.entry["params"]["gpuLayers"] == 17
            assert one.memory <= budget
            assert one.doubt is None


def test_a_processor_reads_no_books(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf")
    (one,) = proposed(tmp_path, machine(64 * 2**30, gpu=False))
    assert one.entry == {"params": {"model": "m.gguf", "ctxSize": 32_768}}


def test_proposal_has_two_slots_where_there_is_plenty(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", context=8192)
    (one,) = proposed(tmp_path, machine(16 * 2**30, gpu=True))
    assert (one.entry["parallel"], one.entry["params"]["ctxSize"]) == (2, 16_384)


def test_what_does_not_fit_a_gpu_goes_there_in_part(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", weights=256 * MIB)
    (one,) = proposed(tmp_path, machine(1300 * MIB, gpu=True))
    layers = one.entry["params"]["gpuLayers"]
    assert 0 < layers < 17
    assert one.entry["params"]["ctxSize"] == 8192
    assert one.doubt is None


def test_what_fits_nowhere_is_told(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", weights=256 * MIB)
    (one,) = proposed(tmp_path, machine(100 * MIB, gpu=False))
    assert one.doubt is not None
    assert "this machine has 0.1 GiB" in one.doubt


def test_embedding_models_take_their_longest_text(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", context=512, kind="bert")
    (one,) = proposed(tmp_path, machine(2**30, gpu=False))
    assert one.entry == {
        "params": {"model": "m.gguf", "ctxSize": 2048, "batchSize": 512},
        "extraArgs": ["--ubatch-size", "512"],
        "parallel": 4,
        "embeddings": True,
    }


def test_names_tell_models_apart(tmp_path: Path) -> None:
    for name in ("one-Q4_K_M", "two-Q4_K_M", "two-Q8_0", "x/one.Q4_K_M", "taken-Q4_0"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / f"{name}.gguf", weights=64, context=8192)
    on = machine(16 * 2**30, gpu=False)
    names = [one.name for one in proposed(tmp_path, on, frozenset({"taken"}))]
    assert names == ["one-Q4_K_M", "taken-Q4_0", "two-Q4_K_M", "two-Q8_0", "one-Q4_K_M-2"]
