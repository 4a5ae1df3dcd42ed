"""The key-values at the start of a GGUF file: what a model is, without its weights.

The ``gguf`` package reads these too, but it builds an array for every string of the
vocabulary (10 s and 530 MiB for 152 000 tokens, where this takes 0.2 s and nothing) and
brings numpy (60 MB). Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_CODES = "BbHhIif?"  # of the value types 0 to 7; 8 is a text, 9 an array, 10 to 12 follow
_SCALARS: Mapping[int, str] = {**dict(enumerate(_CODES)), 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
#: Arrays up to so many numbers are kept (one for each layer); of longer ones only the length.
_KEPT = 4096
#: Bytes: the key-values of 262 000 tokens take 16 MiB. A damaged file must not make us read on
#: through all of its weights.
_LONGEST = 64 * 2**20

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
    with file.open("rb", buffering=block) as stream:
        return _Reader(stream).header(enough)


class _Reader:
    """Reads one value after the other; the byte order is the file's own."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._left = min(os.fstat(stream.fileno()).st_size, _LONGEST)
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
        self._size()  # number of tensors
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

    def _array(self) -> tuple[int, tuple[int | float | bool, ...] | None]:
        kind, length = self._number("I"), self._size()
        if kind == _TEXT:
            for _ in range(length):
                self._take(self._size())
            return length, None
        code = self._code(kind)
        data = self._take(length * struct.calcsize(code))
        if length > _KEPT:
            return length, None
        return length, struct.unpack(f"{self._order}{length}{code}", data)

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
