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
    return zlib.compress(serialise(value), _LEVEL)


def unpack(packed: bytes) -> Any:
    """Return the value that was packed."""
    return orjson.loads(zlib.decompress(packed))


def too_long() -> PayloadTooLarge:
    """Return the error for a conversation that is longer than a request may be."""
    return PayloadTooLarge(
        "all that came before is too long to go on with (limits.max_body): begin anew",
        code="conversation_too_long",
    )


def unpack_all(packed: Sequence[bytes], most: int | None) -> list[Any]:
    """Return the values that were packed. Raises :class:`PayloadTooLarge` for more than ``most``
    bytes of JSON, if there is such a limit.
    """
    values: list[Any] = []
    for each in packed:
        unpacked = zlib.decompress(each)
        if most is not None and (most := most - len(unpacked)) < 0:
            raise too_long()
        values.append(orjson.loads(unpacked))
    return values


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
