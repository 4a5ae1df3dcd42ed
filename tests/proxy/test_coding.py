"""What comes packed: the same bytes come out, however they are cut, and never too many at once."""

from __future__ import annotations

import contextlib
import gzip
import importlib
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.coding import DECODERS, PIECE, Damaged


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "deflate without its header": ("deflate", _raw_deflate),
}
zstd: Any = None
for name in ("backports.zstd", "compression.zstd"):  # Python 3.14 has it itself
    with contextlib.suppress(ImportError):
        zstd = importlib.import_module(name)
        PACKERS["zstd"] = ("zstd", zstd.compress)
try:
    import brotli
except ImportError:
    brotli = None
else:
    PACKERS["br"] = ("br", brotli.compress)

every_kind = pytest.mark.parametrize("kind", PACKERS)
TEXT = b'{"messages": ' + bytes(range(256)) * 300 + b"}"


def unpack(coding: str, *pieces: bytes) -> bytes:
    decoder = DECODERS[coding]()
    found: list[Any] = []
    for piece in pieces:
        found += decoder.feed(piece)
    decoder.end()
    return b"".join(found)


@every_kind
@pytest.mark.parametrize("step", [1, 7, 1000, 100_000])
def test_body_cut_anywhere_is_unpacked_alike(kind: str, step: int) -> None:
    coding, pack = PACKERS[kind]
    packed = pack(TEXT)
    pieces = [packed[at : at + step] for at in range(0, len(packed), step)]
    assert unpack(coding, *pieces) == TEXT


@pytest.mark.parametrize("kind", [kind for kind, (coding, _) in PACKERS.items() if coding != "br"])
@given(data=st.binary(max_size=2000))
def test_what_was_packed_comes_out(kind: str, data: bytes) -> None:
    coding, pack = PACKERS[kind]
    assert unpack(coding, pack(data)) == data


@every_kind
def test_much_comes_in_small_pieces(kind: str) -> None:
    """A gigabyte, of which only the beginning is taken."""
    coding, pack = PACKERS[kind]
    packed = pack(bytes(50_000_000))
    decoder = DECODERS[coding]()
    sizes = []
    for piece in decoder.feed(packed):
        sizes.append(len(piece))
        if sum(sizes) > 10_000_000:
            break
    assert max(sizes) <= 2 * PIECE
    assert sum(sizes) < 10_000_000 + 2 * PIECE


@every_kind
def test_damaged_body_is_told(kind: str) -> None:
    coding, pack = PACKERS[kind]
    packed = pack(TEXT)
    with pytest.raises(Damaged, match="ends too soon"):
        unpack(coding, packed[:-1])
    with pytest.raises(Damaged):
        unpack(coding, packed, b"more")
    with pytest.raises(Damaged):
        unpack(coding, packed + b"more")
    with pytest.raises(Damaged):
        unpack(coding, b"this is no packed body at all, whatever its coding may be")


@every_kind
def test_nothing_at_all_is_nothing(kind: str) -> None:
    assert unpack(PACKERS[kind][0]) == b""


@pytest.mark.parametrize("coding", sorted({"gzip", "zstd"} & DECODERS.keys()))
def test_members_one_behind_the_other_are_unpacked(coding: str) -> None:
    pack = PACKERS[coding][1]
    packed = [pack(part) for part in (b"one ", b"", b"two ", bytes(200_000))]
    wanted = b"one two " + bytes(200_000)
    assert unpack(coding, b"".join(packed)) == wanted
    assert unpack(coding, *packed) == wanted
    with pytest.raises(Damaged, match="more behind its end"):
        unpack(coding, pack(b"") * 1025)


@pytest.mark.skipif(zstd is None, reason="needs backports.zstd, or Python 3.14")
def test_zstd_that_wants_too_much_memory_is_refused() -> None:
    """RFC 9659: a window of 8 MiB at most."""
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    packed = packer.compress(b"ab" * 20_000_000) + packer.flush()
    with pytest.raises(Damaged, match="too much memory"):
        unpack("zstd", packed)
