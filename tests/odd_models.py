"""Writes random models whose memory isn't one of keys and values for each token.

Real ones, of half a megabyte, for what llama-server does when it saves and restores their slots: a
state that only goes forward (:func:`write_mamba`), and attention that sees a window
(:func:`write_gemma2`). As with :mod:`tests.tiny_model` nothing that they say has any sense.
"""

from __future__ import annotations

import array
import math
import random
from collections.abc import Iterator
from pathlib import Path

from tests.gguf_file import Kind, Tensor, entry, write_gguf
from tests.tiny_model import GRAMMAR, TEMPLATE, TOKENS, vocabulary

__all__ = ["GRAMMAR", "WINDOW", "write_gemma2", "write_mamba"]

#: Tokens that gemma's attention sees.
WINDOW = 64
_WIDTH, _INNER, _LAYERS, _HEADS, _CONTEXT = 64, 128, 2, 4, 8192
_STATE, _CONVOLVED, _RANK = 16, 4, 4


def write_mamba(file: Path) -> None:
    """Write a recurrent model."""
    numbers = {
        "context_length": _CONTEXT,
        "embedding_length": _WIDTH,
        "block_count": _LAYERS,
        "feed_forward_length": 0,
        "attention.head_count": 0,
        "ssm.conv_kernel": _CONVOLVED,
        "ssm.inner_size": _INNER,
        "ssm.state_size": _STATE,
        "ssm.time_step_rank": _RANK,
    }
    _write(file, "mamba", numbers, _mamba(random.Random(1)))


def write_gemma2(file: Path) -> None:
    """Write a model with sliding windows in every other layer."""
    numbers = {
        "context_length": _CONTEXT,
        "embedding_length": _WIDTH,
        "block_count": _LAYERS,
        "feed_forward_length": _INNER,
        "attention.head_count": _HEADS,
        "attention.head_count_kv": _HEADS,
        "attention.key_length": _WIDTH // _HEADS,
        "attention.value_length": _WIDTH // _HEADS,
        "attention.sliding_window": WINDOW,
    }
    _write(file, "gemma2", numbers, _gemma2(random.Random(2)))


def _write(file: Path, kind: str, numbers: dict[str, int], tensors: Iterator[Tensor]) -> None:
    metadata = [
        entry("general.architecture", Kind.STRING, kind),
        entry("general.name", Kind.STRING, f"tiny-{kind}"),
        entry("general.file_type", Kind.U32, 0),
        *(entry(f"{kind}.{key}", Kind.U32, number) for key, number in numbers.items()),
        entry(f"{kind}.vocab_size", Kind.U32, len(TOKENS)),
        entry(f"{kind}.attention.layer_norm_rms_epsilon", Kind.F32, 1e-5),
        *vocabulary(TOKENS, TEMPLATE),
    ]
    write_gguf(file, metadata, [*tensors])


def _noise(dice: random.Random, name: str, *shape: int) -> Tensor:
    values = array.array("f", (dice.gauss(0, 0.08) for _ in range(math.prod(shape))))
    return Tensor(name, shape, values.tobytes())


def _all(number: float, name: str, *shape: int) -> Tensor:
    return Tensor(name, shape, array.array("f", [number] * math.prod(shape)).tobytes())


def _mamba(dice: random.Random) -> Iterator[Tensor]:
    yield _noise(dice, "token_embd.weight", _WIDTH, len(TOKENS))
    yield _all(1, "output_norm.weight", _WIDTH)
    for layer in range(_LAYERS):
        block = f"blk.{layer}"
        yield _all(1, f"{block}.attn_norm.weight", _WIDTH)
        yield _noise(dice, f"{block}.ssm_in.weight", _WIDTH, 2 * _INNER)
        yield _noise(dice, f"{block}.ssm_conv1d.weight", _CONVOLVED, _INNER)
        yield _all(0, f"{block}.ssm_conv1d.bias", _INNER)
        yield _noise(dice, f"{block}.ssm_x.weight", _INNER, _RANK + 2 * _STATE)
        yield _noise(dice, f"{block}.ssm_dt.weight", _RANK, _INNER)
        yield _all(0, f"{block}.ssm_dt.bias", _INNER)
        yield _all(-0.01, f"{block}.ssm_a", _STATE, _INNER)
        yield _all(1, f"{block}.ssm_d", _INNER)
        yield _noise(dice, f"{block}.ssm_out.weight", _INNER, _WIDTH)


def _gemma2(dice: random.Random) -> Iterator[Tensor]:
    yield _noise(dice, "token_embd.weight", _WIDTH, len(TOKENS))
    yield _all(1, "output_norm.weight", _WIDTH)
    for layer in range(_LAYERS):
        block = f"blk.{layer}"
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield _noise(dice, f"{block}.{part}.weight", _WIDTH, _WIDTH)
        for part in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            yield _all(1, f"{block}.{part}.weight", _WIDTH)
        yield _noise(dice, f"{block}.ffn_gate.weight", _WIDTH, _INNER)
        yield _noise(dice, f"{block}.ffn_up.weight", _WIDTH, _INNER)
        yield _noise(dice, f"{block}.ffn_down.weight", _INNER, _WIDTH)
