"""Writes GGUF 3 files (ggml project, docs/gguf.md), for models made by the tests themselves."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

_ALIGNMENT = 32


class Kind(IntEnum):
    """Types of a metadata value."""

    U32 = 4
    I32 = 5
    F32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9


class Token(IntEnum):
    """Types of a token (llama.cpp, ``llama_token_type``)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Tensor:
    """32-bit floats, as bytes; ``shape`` has the fastest-running dimension first."""

    name: str
    shape: tuple[int, ...]
    data: bytes | memoryview


_FORMATS = {Kind.U32: "<I", Kind.I32: "<i", Kind.F32: "<f", Kind.BOOL: "<?"}


def write_gguf(file: Path, metadata: Sequence[bytes], tensors: Sequence[Tensor]) -> None:
    """Write a file; ``metadata`` is made by :func:`entry` and :func:`array_of`."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)) + b"".join(metadata)
    offset = 0
    for tensor in tensors:
        head += _text(tensor.name)
        head += struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
        head += struct.pack("<IQ", 0, offset)  # 0: 32-bit floats
        offset += len(tensor.data) + len(_padding(len(tensor.data)))
    with file.open("wb") as out:
        out.write(head + _padding(len(head)))
        for tensor in tensors:
            out.write(tensor.data)
            out.write(_padding(len(tensor.data)))


def entry(key: str, kind: Kind, value: str | float) -> bytes:
    """One key of the metadata."""
    return _text(key) + struct.pack("<I", kind) + _value(kind, value)


def array_of(key: str, kind: Kind, values: Sequence[str | float]) -> bytes:
    """One key of the metadata whose value is a list."""
    head = struct.pack("<IIQ", Kind.ARRAY, kind, len(values))
    return _text(key) + head + b"".join(_value(kind, value) for value in values)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(kind: Kind, value: str | float) -> bytes:
    return _text(value) if isinstance(value, str) else struct.pack(_FORMATS[kind], value)


def _padding(size: int) -> bytes:
    return bytes(-size % _ALIGNMENT)
