"""The way from a llama-server to an rpc-server on another node.

llama.cpp connects to a port of the loopback address, where only the user that runs the node is let
in; from there bytes go on to the other node's front, as those of requests do: over TLS, with
certificates of the cluster at both ends and the key of that start. Nothing is parsed, and each side
is read from only as fast as the other one takes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.cluster.both_ways import FarEnd, NearEnd
from gateway.cluster.rpc_server import LOOPBACK
from gateway.tasks import spawn
from gateway.upstream import TcpAddress
from gateway.upstream.address import connect

_log = logging.getLogger(__name__)

#: Seconds for the other node to take a connection.
_CONNECT: Final = 30.0
#: Bytes that may wait to be sent: enough for the other side never to run dry.
_BUFFER: Final = 2**20


class Tunnel:
    """A way to ``far``, the front of another node. ``name``: of that node.

    ``broken`` says why the way has ended though this side has not hung up, and ``breaks`` is called
    then: a llama-server notices nothing as long as it has no request, and can't do without.
    """

    def __init__(self, name: str, far: TcpAddress, breaks: Callable[[], None]) -> None:
        self.name = name
        self.broken: str | None = None
        self.port = 0
        self._far = far
        self._breaks = breaks
        self._server: asyncio.Server | None = None
        self._ends: set[_Near] = set()

    async def open(self) -> None:
        """Listen, at :attr:`port`. Raises ``OSError``."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Near(self), LOOPBACK, 0
        )
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Close every connection, and listen no more."""
        if self._server is None:
            return
        self._server.close()
        for end in list(self._ends):
            end.abort()
        await self._server.wait_closed()
        self._server = None

    def _break(self, why: str) -> None:
        if self.broken is None and self._server is not None:
            self.broken = why
            self._breaks()


class _Near(NearEnd):
    """A connection of the llama-server."""

    def __init__(self, tunnel: Tunnel) -> None:
        super().__init__()
        self._tunnel = tunnel
        self._opening: asyncio.Task[None] | None = None
        self._closed = False
        self._early = b""  # what came before there was a way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a Protocol gets a Transport
        self._tunnel._ends.add(self)
        self._transport.set_write_buffer_limits(_BUFFER)
        self._opening = spawn(self._open(), name=f"a way to {self._tunnel.name}")

    async def _open(self) -> None:
        peer = self._transport.get_extra_info("peername")
        if not await asyncio.to_thread(_is_ours, int(peer[1]), self._tunnel.port):
            _log.warning("another user of this machine has tried the way to %s", self._tunnel.name)
            self._transport.abort()
            return
        far = FarEnd(self)
        try:
            async with asyncio.timeout(_CONNECT):
                await connect(self._tunnel._far, far)
        except (OSError, TimeoutError) as error:
            self.lost(str(error) or "no answer in time")
            return
        if self._closed:
            far.transport.abort()
            return
        self._opening = None
        self._far = far.transport
        self._far.set_write_buffer_limits(_BUFFER)
        self._far.write(self._early)
        self._early = b""
        self.resume()

    def data_received(self, data: bytes) -> None:
        if self._far is None:
            # Not paused before: uvloop reads once whatever connection_made() says.
            self._early += data
            self.pause()
        elif not self._far.is_closing():
            self._far.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._tunnel._ends.discard(self)
        if self._opening is not None:
            self._opening.cancel()
        self.drop_far()

    def abort(self) -> None:
        """Close at once."""
        self._closed = True
        self._transport.abort()

    def lost(self, why: str) -> None:
        """Close: the other end is gone."""
        if not self._closed and not self._transport.is_closing():
            self._tunnel._break(why)
            self._transport.abort()

    # --- from the other node -------------------------------------------------------------------

    def take(self, data: bytes) -> None:
        """Hand on what the other side has sent."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def far_lost(self, exc: Exception | None) -> None:
        """Close: the other end is gone."""
        self.lost("the connection was closed" if exc is None else str(exc))


def _is_ours(port: int, own: int) -> bool:
    """Return whether the user that runs this has the connection from ``port`` to our port ``own``,
    as far as the system tells (proc(5), /proc/net/tcp). Blocks.
    """
    near, far = f"0100007F:{port:04X}", f"0100007F:{own:04X}"
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/net/tcp").read_text().splitlines():
            fields = line.split()
            if fields[1:3] == [near, far]:
                return int(fields[7]) == os.getuid()
    return True
