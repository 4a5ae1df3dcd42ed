"""The key-values at the start of a GGUF file: what a model is, without its weights.

The ``gguf`` package reads these too, but it builds an array for every string of the
vocabulary (10 s and 530 MiB for 152 000 tokens, where this takes 0.2 s and nothing) and
brings numpy (60 MB). Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import os
import stat
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import cast

_CODES = "BbHhIif?"  # of the value types 0 to 7; 8 is a text, 9 an array, 10 to 12 follow
_SCALARS: Mapping[int, str] = {**dict(enumerate(_CODES)), 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
#: The length up to which arrays of numbers (one for each layer) are kept; of longer ones only the
#: length is.
_KEPT = 4096
#: The most bytes that are read: the key-values of 262 000 tokens take 16 MiB. A damaged file must
#: not make us read all of its weights.
_LONGEST = 64 * 2**20

_DIMENSIONS = 8
#: Type of a tensor -> elements and bytes of a block (ggml.h, ``ggml_type``; ggml-common.h). A
#: tensor of any other type must at least begin within the file.
_BLOCKS: Mapping[int, tuple[int, int]] = {
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    20: (32, 18),
    21: (256, 110),
    22: (256, 82),
    23: (256, 136),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),
    28: (1, 8),
    29: (256, 56),
    30: (1, 2),
    34: (256, 54),
    35: (256, 66),
    39: (32, 17),
}

#: Architectures without a KV cache (llama.cpp, ``llama_model::create_memory``). A llama-server that
#: isn't told their task dies of a signal when it tries to write.
_READERS = frozenset(
    """bert modern-bert nomic-bert nomic-bert-moe neo-bert jina-bert-v2 jina-bert-v3 eurobert
    gemma-embedding""".split()
)
Value = int | float | bool | str | tuple[int | float | bool, ...]


class BadGguf(ValueError):
    """The file is not GGUF, or is cut off or damaged before its key-values end."""


@dataclass(frozen=True, slots=True)
class Header:
    """``values`` are numbers, texts and short arrays of numbers; ``lengths`` is of every array."""

    values: Mapping[str, Value]
    lengths: Mapping[str, int]


def read_header(
    file: Path,
    *,
    enough: Callable[[Mapping[str, Value]], bool] = lambda values: False,
    block: int = 2**18,
) -> Header:
    """Read the key-values of ``file``. Blocking. Raises :class:`BadGguf` and ``OSError``.

    ``enough`` is asked after each of them whether that will do: what a model is stands before its
    vocabulary, which is nearly all of a header. ``block``: bytes that are read at a time.
    """
    with _opened(file, block) as stream:
        return _Reader(stream).header(enough)


def read_extent(file: Path) -> tuple[Header, int]:
    """Return the key-values of ``file``, and the bytes that it must have for all of its weights.

    Blocking. Raises as :func:`read_header` does.
    """
    with _opened(file, 2**18) as stream:
        reader = _Reader(stream)
        header = reader.header(lambda values: False)
        return header, reader.extent(header.values)


def is_reader(values: Mapping[str, Value]) -> bool:
    """Return whether the model with this header can't continue a text."""
    architecture = values.get("general.architecture")
    return architecture in _READERS or values.get(f"{architecture}.attention.causal") is False


def _opened(file: Path, block: int) -> BufferedReader:
    if not stat.S_ISREG(file.stat().st_mode):  # a pipe would be waited for
        raise BadGguf("it is no file")
    return cast("BufferedReader", file.open("rb", buffering=block))


class _Reader:
    """Reads one value after the other; the byte order is the file's own."""

    def __init__(self, stream: BufferedReader) -> None:
        self._stream = stream
        self._most = self._left = min(os.fstat(stream.fileno()).st_size, _LONGEST)
        self._tensors = 0
        self._order = "<"
        self._length = struct.Struct("<Q")

    def header(self, enough: Callable[[Mapping[str, Value]], bool]) -> Header:
        if self._take(4) != b"GGUF":
            raise BadGguf("it does not begin with GGUF")
        version = self._number("I")
        if isinstance(version, int) and version & 0xFFFF == 0:  # a small number, swapped
            self._order, self._length = ">", struct.Struct(">Q")
            version = int.from_bytes(version.to_bytes(4, "little"), "big")
        if version not in (2, 3):
            raise BadGguf(f"its GGUF version is {version}, known are 2 and 3")
        self._tensors = self._size()
        values: dict[str, Value] = {}
        lengths: dict[str, int] = {}
        for _ in range(self._size()):
            key = self._text()
            kind = self._number("I")
            if kind == _TEXT:
                values[key] = self._text()
            elif kind == _ARRAY:
                lengths[key], kept = self._array()
                if kept is not None:
                    values[key] = kept
            else:
                values[key] = self._number(self._code(kind))
            if enough(values):
                break
        return Header(values, lengths)

    def extent(self, values: Mapping[str, Value]) -> int:
        """Return bytes of a whole file; to be asked when the header has been read to its end."""
        last = 0
        for _ in range(self._tensors):
            self._take(self._size())  # its name
            dimensions = int(self._number("I"))
            if dimensions > _DIMENSIONS:
                raise BadGguf("it is damaged: a tensor has too many dimensions")
            elements = math.prod(self._size() for _ in range(dimensions))
            per_block, size = _BLOCKS.get(int(self._number("I")), (1, 0))
            last = max(last, self._size() + elements // per_block * size)
        alignment = values.get("general.alignment", 32)
        step = alignment if isinstance(alignment, int) and alignment > 0 else 32
        start = -(-(self._most - self._left) // step) * step
        return start + last

    def _array(self) -> tuple[int, tuple[int | float | bool, ...] | None]:
        kind, length = self._number("I"), self._size()
        if kind == _TEXT:
            self._skip_texts(length)
            return length, None
        code = self._code(kind)
        data = self._take(length * struct.calcsize(code))
        if length > _KEPT:
            return length, None
        return length, struct.unpack(f"{self._order}{length}{code}", data)

    def _skip_texts(self, count: int) -> None:
        # A vocabulary is nearly all of a header: as many at a time as are in the buffer.
        unpack = self._length.unpack_from
        while count:
            buffered = self._stream.peek(8)
            at, end = 0, len(buffered) - 8
            while count and at <= end:
                following = at + 8 + unpack(buffered, at)[0]
                if following > len(buffered):
                    break
                at, count = following, count - 1
            if at:
                self._take(at)
            else:  # one that is longer than the rest of the buffer
                self._take(self._size())
                count -= 1

    def _code(self, kind: int | float | bool) -> str:
        try:
            return _SCALARS[int(kind)]
        except KeyError:
            raise BadGguf(f"it has a value of the unknown type {kind}") from None

    def _text(self) -> str:
        return self._take(self._size()).decode("utf-8", "replace")

    def _size(self) -> int:
        size: int = self._length.unpack(self._take(8))[0]
        return size

    def _number(self, code: str) -> int | float | bool:
        data = self._take(struct.calcsize(code))
        number: int | float | bool = struct.unpack(self._order + code, data)[0]
        return number

    def _take(self, count: int) -> bytes:
        # Checked first: a damaged length must not ask for exabytes.
        self._left -= count
        data = self._stream.read(count) if self._left >= 0 else b""
        if len(data) != count:
            raise BadGguf("it is cut off or damaged: its header does not end")
        return data
