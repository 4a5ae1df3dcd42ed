"""Gives the demo model the tokens that stand around a gap, so that it serves ``/infill``.

It was not taught to fill gaps; which of its tokens these are makes no difference to what is kept
of a prompt.
"""

from __future__ import annotations

import struct
from pathlib import Path

from gateway.models.paths import resolve_model_path
from tests.gguf_file import Kind, entry
from tests.harness import DEMO_GGUF

#: By name in the metadata: tokens of the demo model that stand for nothing in a prompt of a test.
_GAP = {"pre": 8, "suf": 9, "mid": 10}
#: Where the metadata begins, and where the number of its entries is; what the data is aligned to.
_METADATA, _COUNT, _ALIGNMENT = 24, 16, 32


def write_gap_model(file: Path) -> None:
    """Write it, with these tokens in front of the rest of the metadata."""
    whole = resolve_model_path(DEMO_GGUF, Path()).read_bytes()
    more = [
        entry(f"tokenizer.ggml.fim_{name}_token_id", Kind.U32, token)
        for name, token in _GAP.items()
    ]
    # The rest keeps its places in the file, modulo the alignment.
    size = len(b"".join(more)) + len(entry("general.comment", Kind.STRING, ""))
    more.append(entry("general.comment", Kind.STRING, " " * (-size % _ALIGNMENT)))
    (count,) = struct.unpack_from("<Q", whole, _COUNT)
    with file.open("wb") as out:
        out.write(whole[:_COUNT] + struct.pack("<Q", count + len(more)))
        out.write(b"".join(more))
        out.write(memoryview(whole)[_METADATA:])
