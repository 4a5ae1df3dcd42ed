"""Streams over TLS to a server on loopback."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def echo_server(context: ssl.SSLContext) -> AsyncIterator[int]:
    """The port of a TLS server that sends every line back."""
    writers: set[asyncio.StreamWriter] = set()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()


def anyone(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client that looks at the certificate itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version:
        context.minimum_version = context.maximum_version = version
    return context


async def connect(
    port: int, context: ssl.SSLContext | None = None, name: str = "localhost"
) -> Stream:
    return await asyncio.open_connection(
        "127.0.0.1", port, ssl=context or anyone(), server_hostname=name
    )


def tls_of(stream: Stream) -> ssl.SSLObject:
    return stream[1].get_extra_info("ssl_object")


async def echoes(stream: Stream) -> bool:
    stream[1].write(b"still there?\n")
    return await stream[0].readline() == b"still there?\n"


async def close(*streams: Stream) -> None:
    for _, writer in streams:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for _, writer in streams), return_exceptions=True)


async def presented(
    port: int, context: ssl.SSLContext | None = None, name: str = "localhost"
) -> Any:
    """The certificate that a new connection is shown (DER)."""
    stream = await connect(port, context, name)
    assert await echoes(stream)
    der = tls_of(stream).getpeercert(binary_form=True)
    await close(stream)
    return der
