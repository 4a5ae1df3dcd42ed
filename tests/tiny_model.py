"""Writes a random llama of half a megabyte: a real model for tests with many processes.

What it says has no sense. Left to itself it soon says something that is no text; held to
:data:`GRAMMAR`, at temperature 0, it answers, and the same each time. The format is GGUF 3 (ggml
project, docs/gguf.md); a SentencePiece vocabulary of bytes, letters and a few words.
"""

from __future__ import annotations

import array
import random
import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path

GRAMMAR = "root ::= [a-z ]{20,20}"

_WIDTH, _INNER, _LAYERS, _HEADS, _CONTEXT = 64, 128, 2, 4, 32768
_TOKENS = [
    *("<unk>", "<s>", "</s>"),
    *(f"<0x{byte:02X}>" for byte in range(256)),
    *("\u2581", *"abcdefghijklmnopqrstuvwxyz"),
    *("\u2581the", "\u2581a", "\u2581and", "\u2581to"),
]
_TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
_ALIGNMENT = 32


class _Kind(IntEnum):
    """Types of a metadata value."""

    U32 = 4
    I32 = 5
    F32 = 6
    STRING = 8
    ARRAY = 9


def write_tiny_model(file: Path, seed: int = 0) -> None:
    """Write the model; equal seeds make equal files."""
    tensors = list(_tensors(random.Random(seed)))
    metadata = list(_metadata())
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)) + b"".join(metadata)
    data = b""
    for name, shape, values in tensors:
        head += _text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", 0, len(data))  # 0: 32-bit floats
        data += _padded(values.tobytes())
    file.write_bytes(_padded(head) + data)


def _metadata() -> Iterator[bytes]:
    words = len(_TOKENS) - 259
    yield _entry("general.architecture", _Kind.STRING, "llama")
    yield _entry("general.name", _Kind.STRING, "tiny-random")
    yield _entry("general.file_type", _Kind.U32, 0)
    for key, number in {
        "context_length": _CONTEXT,
        "embedding_length": _WIDTH,
        "block_count": _LAYERS,
        "feed_forward_length": _INNER,
        "attention.head_count": _HEADS,
        "attention.head_count_kv": _HEADS,
        "rope.dimension_count": _WIDTH // _HEADS,
        "vocab_size": len(_TOKENS),
    }.items():
        yield _entry(f"llama.{key}", _Kind.U32, number)
    yield _entry("llama.attention.layer_norm_rms_epsilon", _Kind.F32, 1e-5)
    yield _entry("tokenizer.ggml.model", _Kind.STRING, "llama")
    yield _list("tokenizer.ggml.tokens", _Kind.STRING, _TOKENS)
    scores = [0.0] * 3 + [-1000.0] * 256 + [-float(rank) for rank in range(words)]
    yield _list("tokenizer.ggml.scores", _Kind.F32, scores)
    # unknown 2, control 3, byte 6, normal 1
    yield _list("tokenizer.ggml.token_type", _Kind.I32, [2, 3, 3] + [6] * 256 + [1] * words)
    for key, token in {"bos": 1, "eos": 2, "unknown": 0}.items():
        yield _entry(f"tokenizer.ggml.{key}_token_id", _Kind.U32, token)
    yield _entry("tokenizer.chat_template", _Kind.STRING, _TEMPLATE)


def _tensors(dice: random.Random) -> Iterator[tuple[str, tuple[int, ...], array.array[float]]]:
    """Name, shape (the fastest-running dimension first) and values of each."""

    def noise(
        name: str, columns: int, rows: int
    ) -> tuple[str, tuple[int, int], array.array[float]]:
        values = array.array("f", (dice.gauss(0, 0.08) for _ in range(columns * rows)))
        return f"{name}.weight", (columns, rows), values

    def ones(name: str) -> tuple[str, tuple[int], array.array[float]]:
        return f"{name}.weight", (_WIDTH,), array.array("f", [1.0] * _WIDTH)

    yield noise("token_embd", _WIDTH, len(_TOKENS))
    yield ones("output_norm")
    yield noise("output", _WIDTH, len(_TOKENS))
    for layer in range(_LAYERS):
        block = f"blk.{layer}"
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield noise(f"{block}.{part}", _WIDTH, _WIDTH)
        yield ones(f"{block}.attn_norm")
        yield ones(f"{block}.ffn_norm")
        yield noise(f"{block}.ffn_gate", _WIDTH, _INNER)
        yield noise(f"{block}.ffn_up", _WIDTH, _INNER)
        yield noise(f"{block}.ffn_down", _INNER, _WIDTH)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(kind: _Kind, value: str | float) -> bytes:
    if isinstance(value, str):
        return _text(value)
    return struct.pack({_Kind.U32: "<I", _Kind.I32: "<i", _Kind.F32: "<f"}[kind], value)


def _entry(key: str, kind: _Kind, value: str | float) -> bytes:
    return _text(key) + struct.pack("<I", kind) + _value(kind, value)


def _list(key: str, kind: _Kind, values: Sequence[str | float]) -> bytes:
    head = struct.pack("<IIQ", _Kind.ARRAY, kind, len(values))
    return _text(key) + head + b"".join(_value(kind, value) for value in values)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)
