"""Writes a random projector of a few kilobytes, which lets :mod:`tests.tiny_model` see pictures.

A real one (llama.cpp's ``clip``, as gemma 3 has it): what the model says of a picture has no sense,
but it differs by picture. Each takes four tokens.
"""

from __future__ import annotations

import array
import math
import random
from collections.abc import Iterator
from pathlib import Path

from tests.gguf_file import Kind, Tensor, array_of, entry, write_gguf

_TEXT_WIDTH = 64  # of the tiny model
_IMAGE, _PATCH, _WIDTH, _INNER, _LAYERS, _HEADS = 64, 8, 32, 64, 1, 2


def write_projector(file: Path) -> None:
    """Write it; each time the same."""
    numbers = {
        "image_size": _IMAGE,
        "patch_size": _PATCH,
        "embedding_length": _WIDTH,
        "feed_forward_length": _INNER,
        "block_count": _LAYERS,
        "projection_dim": _TEXT_WIDTH,
        "attention.head_count": _HEADS,
    }
    metadata = [
        entry("general.architecture", Kind.STRING, "clip"),
        entry("general.name", Kind.STRING, "tiny-projector"),
        entry("general.file_type", Kind.U32, 0),
        entry("clip.has_vision_encoder", Kind.BOOL, True),
        entry("clip.projector_type", Kind.STRING, "gemma3"),
        entry("clip.use_gelu", Kind.BOOL, True),
        *(entry(f"clip.vision.{key}", Kind.U32, number) for key, number in numbers.items()),
        entry("clip.vision.attention.layer_norm_epsilon", Kind.F32, 1e-6),
        array_of("clip.vision.image_mean", Kind.F32, [0.5] * 3),
        array_of("clip.vision.image_std", Kind.F32, [0.5] * 3),
    ]
    write_gguf(file, metadata, [*_tensors(random.Random(3))])


def _tensors(dice: random.Random) -> Iterator[Tensor]:
    def noise(name: str, *shape: int) -> Tensor:
        values = array.array("f", (dice.gauss(0, 0.2) for _ in range(math.prod(shape))))
        return Tensor(name, shape, values.tobytes())

    def same(number: float, name: str, size: int) -> Tensor:
        return Tensor(name, (size,), array.array("f", [number] * size).tobytes())

    def norm(name: str) -> Iterator[Tensor]:
        yield same(1, f"{name}.weight", _WIDTH)
        yield same(0, f"{name}.bias", _WIDTH)

    yield noise("v.patch_embd.weight", _PATCH, _PATCH, 3, _WIDTH)
    yield same(0, "v.patch_embd.bias", _WIDTH)
    yield noise("v.position_embd.weight", _WIDTH, (_IMAGE // _PATCH) ** 2)
    for layer in range(_LAYERS):
        block = f"v.blk.{layer}"
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            yield noise(f"{block}.{part}.weight", _WIDTH, _WIDTH)
            yield same(0, f"{block}.{part}.bias", _WIDTH)
        yield from norm(f"{block}.ln1")
        yield from norm(f"{block}.ln2")
        yield noise(f"{block}.ffn_up.weight", _WIDTH, _INNER)
        yield same(0, f"{block}.ffn_up.bias", _INNER)
        yield noise(f"{block}.ffn_down.weight", _INNER, _WIDTH)
        yield same(0, f"{block}.ffn_down.bias", _WIDTH)
    yield from norm("v.post_ln")
    yield noise("mm.input_projection.weight", _TEXT_WIDTH, _WIDTH)
    yield same(1, "mm.soft_emb_norm.weight", _WIDTH)
