"""Writes a random llama of half a megabyte: a real model for tests with many processes.

What it says has no sense. Left to itself it soon says something that is no text; held to
:data:`GRAMMAR`, at temperature 0, it answers, and the same each time. Its vocabulary is
SentencePiece's: bytes, letters and a few words.
"""

from __future__ import annotations

import array
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.gguf_file import Kind, Tensor, Token, array_of, entry, write_gguf

GRAMMAR = "root ::= [a-z ]{20,20}"

_WIDTH, _INNER, _LAYERS, _HEADS, _CONTEXT = 64, 128, 2, 4, 32768
#: Every vocabulary begins so; ``</s>`` ends an answer.
BASIC_TOKENS = (
    ("<unk>", Token.UNKNOWN),
    ("<s>", Token.CONTROL),
    ("</s>", Token.CONTROL),
    *((f"<0x{byte:02X}>", Token.BYTE) for byte in range(256)),
    *((text, Token.NORMAL) for text in ("\u2581", *"abcdefghijklmnopqrstuvwxyz")),
)
_WORDS = ("\u2581the", "\u2581a", "\u2581and", "\u2581to")
TOKENS = (*BASIC_TOKENS, *((word, Token.NORMAL) for word in _WORDS))
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def write_tiny_model(file: Path, seed: int = 0, *, context: int = _CONTEXT) -> None:
    """Write the model; equal seeds make equal files. ``context``: tokens it says it can have."""
    shape = (_WIDTH, _INNER, _LAYERS, _HEADS)
    metadata = llama_metadata("tiny-random", TOKENS, TEMPLATE, *shape, context=context)
    write_gguf(file, list(metadata), list(_tensors(random.Random(seed))))


def llama_metadata(
    name: str,
    tokens: Sequence[tuple[str, Token]],
    template: str,
    width: int,
    inner: int,
    layers: int,
    heads: int,
    *,
    context: int = _CONTEXT,
) -> Iterator[bytes]:
    """What a small llama needs, whose vocabulary begins with :data:`BASIC_TOKENS`."""
    yield entry("general.architecture", Kind.STRING, "llama")
    yield entry("general.name", Kind.STRING, name)
    yield entry("general.file_type", Kind.U32, 0)
    for key, number in {
        "context_length": context,
        "embedding_length": width,
        "block_count": layers,
        "feed_forward_length": inner,
        "attention.head_count": heads,
        "attention.head_count_kv": heads,
        "rope.dimension_count": width // heads,
        "vocab_size": len(tokens),
    }.items():
        yield entry(f"llama.{key}", Kind.U32, number)
    yield entry("llama.attention.layer_norm_rms_epsilon", Kind.F32, 1e-5)
    yield from vocabulary(tokens, template)


def vocabulary(tokens: Sequence[tuple[str, Token]], template: str) -> Iterator[bytes]:
    """What every model needs to read and write text."""
    yield entry("tokenizer.ggml.model", Kind.STRING, "llama")
    yield array_of("tokenizer.ggml.tokens", Kind.STRING, [text for text, _ in tokens])
    words = len(tokens) - 259
    scores = [0.0] * 3 + [-1000.0] * 256 + [-float(rank) for rank in range(words)]
    yield array_of("tokenizer.ggml.scores", Kind.F32, scores)
    yield array_of("tokenizer.ggml.token_type", Kind.I32, [kind for _, kind in tokens])
    for key, token in {"bos": 1, "eos": 2, "unknown": 0}.items():
        yield entry(f"tokenizer.ggml.{key}_token_id", Kind.U32, token)
    yield entry("tokenizer.chat_template", Kind.STRING, template)


def _tensors(dice: random.Random) -> Iterator[Tensor]:
    def noise(name: str, columns: int, rows: int) -> Tensor:
        values = array.array("f", (dice.gauss(0, 0.08) for _ in range(columns * rows)))
        return Tensor(f"{name}.weight", (columns, rows), values.tobytes())

    def ones(name: str) -> Tensor:
        return Tensor(f"{name}.weight", (_WIDTH,), array.array("f", [1.0] * _WIDTH).tobytes())

    yield noise("token_embd", _WIDTH, len(TOKENS))
    yield ones("output_norm")
    yield noise("output", _WIDTH, len(TOKENS))
    for layer in range(_LAYERS):
        block = f"blk.{layer}"
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield noise(f"{block}.{part}", _WIDTH, _WIDTH)
        yield ones(f"{block}.attn_norm")
        yield ones(f"{block}.ffn_norm")
        yield noise(f"{block}.ffn_gate", _WIDTH, _INNER)
        yield noise(f"{block}.ffn_up", _WIDTH, _INNER)
        yield noise(f"{block}.ffn_down", _INNER, _WIDTH)
