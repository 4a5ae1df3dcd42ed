"""A client that speaks to a gateway byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from gateway.tls import self_signed
from tests.harness import Running

CHAT = b'{"model": "good", "messages": [{"role": "user", "content": "hi"}]}'


class Client:
    """A socket to the gateway, and what came back on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case, and body of one answer with a Content-Length."""
        async with asyncio.timeout(10):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status, *lines = head.decode("latin-1").split("\r\n")[:-2]
            fields = (line.partition(":") for line in lines)
            headers = {name.lower(): value.strip() for name, _, value in fields}
            body = await self.reader.readexactly(int(headers["content-length"]))
            return int(status.split()[1]), headers, body

    async def error(self) -> tuple[int, str]:
        """Status and code of an answer that is an error."""
        status, headers, body = await self.answer()
        assert headers["server"] == "llm-gateway"
        error = json.loads(body)["error"]
        assert error["message"]
        return status, error["code"]

    async def closed(self) -> bytes:
        """What else comes until the gateway closes the connection."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""


@contextlib.asynccontextmanager
async def connected(running: Running, **options: Any) -> AsyncIterator[Client]:
    host, _, port = running.url.partition("://")[2].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), **options)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


def head(running: Running, *lines: str, host: str | None = "127.0.0.1") -> bytes:
    """A request's head: its first line, headers, and those every request needs."""
    first, *more = lines
    hosts = [] if host is None else [f"Host: {host}"]
    rows = [first, *hosts, f"Authorization: Bearer {running.key}", *more, "", ""]
    return "\r\n".join(rows).encode("latin-1")


def post(running: Running, body: bytes, *lines: str) -> bytes:
    length = f"Content-Length: {len(body)}"
    return head(running, "POST /v1/chat/completions HTTP/1.1", length, *lines) + body


async def still_serves(running: Running, **options: Any) -> None:
    async with connected(running, **options) as client:
        client.send(post(running, CHAT))
        status, _, body = await client.answer()
        assert status == 200
        assert json.loads(body)["choices"][0]["message"]["content"] == "fake answer"


async def counted(running: Running, count: int) -> None:
    """Until the gateway has seen that there are so many connections."""
    connections = running.gateway.connections
    async with asyncio.timeout(20):
        while connections.count != count:
            await asyncio.sleep(0.01)


def with_tls(folder: Path) -> tuple[dict[str, Any], ssl.SSLContext]:
    """Settings with a certificate for 127.0.0.1, and what a client needs to trust it."""
    made = self_signed(["127.0.0.1"], folder / "ssl")
    names = {"private_key": made.private_key, "certificate": made.certificate}
    tls = {name: str(file) for name, file in names.items()}
    return {"enabled": True, **tls}, ssl.create_default_context(cafile=str(made.chain))


def small(running: Running) -> socket.socket:
    """A socket to the gateway that takes little at a time."""
    host, _, port = running.url.partition("://")[2].rpartition(":")
    taking = socket.socket()
    taking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    taking.connect((host, int(port)))
    return taking
