"""Values between the gateway and its driver process: pickled, each after its length.

Both ends are of one program, on one machine, over a socket that nobody else has.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
from typing import Any

_LENGTH = struct.Struct("!I")


class Unreadable(Exception):
    """What has come is no value here: the other end is of another version of this program."""


def packed(value: object) -> bytes:
    """Return ``value`` as it goes over the socket."""
    data = pickle.dumps(value, protocol=5)
    return _LENGTH.pack(len(data)) + data


async def receive(reader: asyncio.StreamReader) -> Any:
    """Return the next value. Raises ``asyncio.IncompleteReadError`` at the end, and
    :class:`Unreadable`.
    """
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    data = await reader.readexactly(length)
    try:
        return pickle.loads(data)  # noqa: S301 - see above
    except Exception as error:  # whatever a class of another version makes of it
        raise Unreadable(f"{type(error).__name__}: {error}") from error
