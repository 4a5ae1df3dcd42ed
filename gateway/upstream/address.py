"""Where a backend is, and how a transport to it is opened."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import NamedTuple

_BACKLOG_FULL_WAIT = 0.005  # seconds between tries while a Unix socket's backlog is full


class UnixAddress(NamedTuple):
    """A socket in the file system. ``authority`` is what ``Host`` names: it has no name itself."""

    path: str
    authority: str = "localhost"


class TcpAddress(NamedTuple):
    """A host and port, with TLS if ``ssl_context`` is given.

    ``authority`` is what ``Host`` names, where that isn't simply both of them.
    """

    host: str
    port: int
    ssl_context: ssl.SSLContext | None = None
    authority: str = ""


async def connect(address: UnixAddress | TcpAddress, protocol: asyncio.BaseProtocol) -> None:
    """Open a transport to ``address`` for ``protocol``. Raises OSError."""
    loop = asyncio.get_running_loop()
    if isinstance(address, TcpAddress):
        transport, _ = await loop.create_connection(
            lambda: protocol, address.host, address.port, ssl=address.ssl_context
        )
        _keep_alive(transport.get_extra_info("socket"))
        return
    # Connecting to a Unix socket never waits: it works or fails at once, with EAGAIN while
    # the listener's backlog is full (5 in cpp-httplib). asyncio takes EAGAIN for a connect
    # under way and then writes to a socket that isn't connected, so it's done here.
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        while True:
            try:
                sock.connect(address.path)
                break
            except BlockingIOError:
                await asyncio.sleep(_BACKLOG_FULL_WAIT)
        await loop.create_unix_connection(lambda: protocol, sock=sock)
    except BaseException:
        sock.close()
        raise


def _keep_alive(sock: socket.socket) -> None:
    """Let the system notice, within a minute, that the machine at the other end is gone.

    It may vanish in the middle of an answer, and nothing else would ever show that.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):  # not everywhere
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
