"""A raw scripted backend, pools, and a sink that notes what it hears."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.upstream import (
    ResponseHead,
    TcpAddress,
    UnixAddress,
    UpstreamError,
    UpstreamPool,
)
from tests.pools import GET, MakePool

try:
    import uvloop
except ImportError:
    uvloop = None

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The data plane runs on both loops, so every asynchronous test in this folder does."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
        "asyncio": asyncio.new_event_loop
    }
    if uvloop is not None:
        factories["uvloop"] = uvloop.new_event_loop
    return factories


class Backend:
    """Servers whose handlers get (reader, writer, number of the connection)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0

    async def serve(
        self, handler: Handler, *, backlog: int = 100, tcp: bool | str = False, tls: Any = None
    ) -> UnixAddress | TcpAddress:
        """``tcp``: not a Unix socket but a port, on 127.0.0.1 or the address that is given."""

        async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            self._tasks.add(task)
            number, self.connections = self.connections, self.connections + 1
            try:
                with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                    await handler(reader, writer, number)
            finally:
                self._tasks.discard(task)
                writer.transport.abort()

        if tcp or tls is not None:
            host = tcp if isinstance(tcp, str) else "127.0.0.1"
            server = await asyncio.start_server(run, host, 0, backlog=backlog, ssl=tls)
            self._servers.append(server)
            return TcpAddress(host, server.sockets[0].getsockname()[1])
        path = str(self._folder / f"{len(self._servers)}.sock")
        self._servers.append(await asyncio.start_unix_server(run, path, backlog=backlog))
        return UnixAddress(path)

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @staticmethod
    async def request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
        """The head and the body of one request; IncompleteReadError at the end."""
        head = await reader.readuntil(b"\r\n\r\n")
        body = b""
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                body = await reader.readexactly(int(value))
            elif name.lower() == b"transfer-encoding":
                while size := int(await reader.readline(), 16):
                    body += (await reader.readexactly(size + 2))[:-2]
                await reader.readexactly(2)
        return head, body


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    # Not tmp_path: the path of a Unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        scripted = Backend(Path(folder))
        yield scripted
        await scripted.stop()


class Recorder:
    """A sink that keeps everything, with events to wait for."""

    def __init__(self) -> None:
        self.heads: list[ResponseHead] = []
        self.pieces: list[bytes] = []
        self.ends: list[UpstreamError | None] = []  # None: a clean end
        self.begun = asyncio.Event()
        self.fed = asyncio.Event()
        self.ended = asyncio.Event()

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def on_head(self, head: ResponseHead) -> None:
        assert not self.heads
        assert not self.ends
        self.heads.append(head)
        self.begun.set()

    def on_body(self, data: bytes) -> None:
        assert self.heads
        assert not self.ends
        assert type(data) is bytes
        self.pieces.append(data)
        self.fed.set()

    def on_end(self) -> None:
        assert self.heads
        assert not self.ends
        self.ends.append(None)
        self.ended.set()

    def on_error(self, error: UpstreamError) -> None:
        assert not self.ends
        self.ends.append(error)
        self.ended.set()

    async def answer(self) -> tuple[int, bytes]:
        """Status and body once it is complete; raises the error it ended with."""
        await self.ended.wait()
        if (error := self.ends[0]) is not None:
            raise error
        return self.heads[0].status, self.body


@pytest.fixture
def recorder() -> Callable[[], Recorder]:
    return Recorder


@pytest.fixture
async def pool_of() -> AsyncIterator[MakePool]:
    """Makes pools, and closes them before the backend stops."""
    pools: list[UpstreamPool] = []

    def make(address: UnixAddress | TcpAddress, **options: Any) -> UpstreamPool:
        pool = UpstreamPool(address, **{"max_connections": 4, "name": "llama", **options})
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        await pool.close()


@pytest.fixture
def get(recorder: Callable[[], Any]) -> Callable[[UpstreamPool], Any]:
    async def get(pool: UpstreamPool) -> tuple[int, bytes]:
        sink = recorder()
        await pool.send(GET, sink)
        return await sink.answer()

    return get


@pytest.fixture
def full_backlog() -> Iterator[tuple[UnixAddress, socket.socket, int]]:
    """A Unix socket whose listener accepts nothing and has no room left."""
    with tempfile.TemporaryDirectory(prefix="gw") as folder, contextlib.ExitStack() as stack:
        path = str(Path(folder) / "full.sock")
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        fillers = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(path)
                fillers += 1
        yield UnixAddress(path), listener, fillers
