"""A cluster's authority, a front before a scripted server, and pools that come by it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cluster.ca import Authority, client_context, server_context, server_name
from gateway.cluster.front import Door, Front
from gateway.upstream import TcpAddress

try:
    import uvloop
except ImportError:
    uvloop = None

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Both ends may run on either loop, so every asynchronous test in this folder does."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
        "asyncio": asyncio.new_event_loop
    }
    if uvloop is not None:
        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.open(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.open(tmp_path_factory.mktemp("other"))


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: the path of a Unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="gw") as name:
        yield Path(name)


class Attic:
    """A node: a front, scripted servers behind it, and how a gateway reaches them."""

    def __init__(self, authority: Authority, folder: Path) -> None:
        self.authority = authority
        self.folder = folder
        server = authority.issue(server_name("attic"), server=True, client=False)
        self.front = Front(server_context(server))
        client = authority.issue("gateway.llm-gateway.internal", server=False, client=True)
        self.context = client_context(client)
        self.port = 0
        self.servers: list[asyncio.Server] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def open(self) -> None:
        self.port = await self.front.listen("127.0.0.1")

    async def serve(self, handler: Handler, **options: Any) -> Door:
        """Open a door to a server whose connections ``handler`` gets."""

        async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.writers.append(writer)
            try:
                await handler(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        path = self.folder / f"{len(self.servers)}.sock"
        self.servers.append(await asyncio.start_unix_server(run, str(path), **options))
        return self.front.add(path)

    def address(self, door: Door) -> TcpAddress:
        return TcpAddress(
            "127.0.0.1", self.port, self.context, server_name=server_name("attic"), key=door.key
        )

    async def dial(
        self, door: Door | None = None, **options: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection as TLS has it; through ``door`` if there is one."""
        options = {"ssl": self.context, "server_hostname": server_name("attic"), **options}
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, **options)
        self.writers.append(writer)
        if door is not None:
            writer.write(b"LLM-GATEWAY/1 %b\n" % door.key.reveal().encode())
            assert await reader.readline() == b"OK\n"
        return reader, writer

    async def close(self) -> None:
        for writer in self.writers:
            if not writer.is_closing():
                writer.transport.abort()
        await self.front.close()
        for server in self.servers:
            server.close()
            await server.wait_closed()


@pytest.fixture
async def attic(authority: Authority, folder: Path) -> AsyncIterator[Attic]:
    node = Attic(authority, folder)
    await node.open()
    yield node
    await node.close()
