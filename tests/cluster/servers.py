"""Servers behind a front, and what tests of it ask again and again."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from gateway.upstream import TcpAddress, UpstreamPool

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that answers every request."""
    while True:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)


async def echoes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that sends back what it gets."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


class Held:
    """A server that keeps its connections, for the test to use."""

    def __init__(self) -> None:
        self.came: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
            asyncio.Queue()
        )

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came.put_nowait((reader, writer))
        await writer.wait_closed()


def pool_for(address: TcpAddress, **options: Any) -> UpstreamPool:
    return UpstreamPool(address, **{"max_connections": 4, "name": "llama", **options})


async def closed(reader: asyncio.StreamReader) -> bool:
    """Whether the other end closes without another byte."""
    try:
        return await reader.read() == b""
    except (ConnectionError, ssl.SSLError):
        return True
