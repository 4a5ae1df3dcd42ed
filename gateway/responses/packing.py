"""JSON and events as they are kept, packed by zlib. Pure; may take a while."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Final

import orjson

from gateway.proxy.body import serialise

#: Quick: an answer's events pack to a tenth with any level.
_LEVEL: Final = 1


def pack(value: Any) -> bytes:
    """Return ``value`` as packed JSON."""
    return zlib.compress(serialise(value), _LEVEL)


def unpack(packed: bytes) -> Any:
    """Return the value that was packed."""
    return orjson.loads(zlib.decompress(packed))


def pack_events(pieces: Sequence[bytes], *, chunked: bool) -> bytes:
    """Return the events of a stream that went out in ``pieces``, packed.

    ``chunked``: each piece is a chunk (RFC 9112, 7.1).
    """
    if chunked:
        pieces = [piece[piece.index(b"\n") + 1 : -2] for piece in pieces]
    return zlib.compress(b"".join(pieces), _LEVEL)


def unpack_events(packed: bytes) -> bytes:
    """Return the events as they went out."""
    return zlib.decompress(packed)
