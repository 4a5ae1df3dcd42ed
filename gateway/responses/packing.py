"""JSON and events as they are kept, packed by zlib. Pure; may take a while."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Final

import orjson

from gateway.errors import PayloadTooLarge
from gateway.proxy.body import serialise

#: Quick: an answer's events pack to a tenth with any level.
_LEVEL: Final = 1


def pack(value: Any) -> bytes:
    """Return ``value`` as packed JSON."""
    return pack_text(serialise(value))


def pack_text(text: bytes) -> bytes:
    """Return JSON, packed."""
    return zlib.compress(text, _LEVEL)


def unpack(packed: bytes) -> Any:
    """Return the value that was packed."""
    return orjson.loads(zlib.decompress(packed))


def too_long() -> PayloadTooLarge:
    """Return the error for a conversation that is longer than a request may be."""
    return PayloadTooLarge(
        "all that came before is too long to go on with (limits.max_body): begin anew",
        code="conversation_too_long",
    )


def pack_items(items: bytes) -> bytes:
    """Return items, JSON with commas between them, as packed JSON: a list."""
    packing = zlib.compressobj(_LEVEL)
    return (
        packing.compress(b"[") + packing.compress(items) + packing.compress(b"]") + packing.flush()
    )


def unpack_items(packed: bytes) -> bytes:
    """Return the JSON of a list that was packed, without its brackets."""
    return zlib.decompress(packed)[1:-1]


def unpack_texts(packed: Sequence[bytes], most: int | None) -> list[bytes]:
    """Return the JSON that was packed. Raises :class:`PayloadTooLarge` for more than ``most``
    bytes of it, if there is such a limit.
    """
    texts: list[bytes] = []
    for each in packed:
        texts.append(text := zlib.decompress(each))
        if most is not None and (most := most - len(text)) < 0:
            raise too_long()
    return texts


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
