"""What tests of pools share: a small answer, a backend that gives it to everybody, a plain GET."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any

from gateway.upstream import UpstreamPool, UpstreamRequest

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = UpstreamRequest("GET", "/")
MakePool = Callable[..., UpstreamPool]


class Keeping:
    """A handler that answers every request with ``OK`` and notes what it got."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.requests: list[tuple[int, bytes, bytes]] = []
        self.closed: asyncio.Queue[int] = asyncio.Queue()

    async def __call__(self, reader: Any, writer: Any, number: int) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head, body = await self.backend.request(reader)
                self.requests.append((number, head, body))
                writer.write(OK)
        self.closed.put_nowait(number)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset instead of an orderly end (TCP)."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
