"""Where a backend is, and how a transport to it is opened."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Final, NamedTuple

from gateway.secret import Secret

_BACKLOG_FULL_WAIT = 0.005  # seconds between tries while a Unix socket's backlog is full


#: What opens a connection to another machine of a cluster, before its key, and the answers; see
#: :mod:`gateway.cluster.front`.
KNOCK: Final = b"LLM-GATEWAY/1 "
LET_IN: Final = b"OK\n"
TURNED_AWAY: Final = b"NO "
_LONGEST_ANSWER: Final = 256


class UnixAddress(NamedTuple):
    """A socket in the file system. ``authority`` is what ``Host`` names: it has no name itself."""

    path: str
    authority: str = "localhost"


class TcpAddress(NamedTuple):
    """A host and port, with TLS if ``ssl_context`` is given.

    ``authority`` is what ``Host`` names, where that isn't simply both of them. ``server_name``:
    that of its certificate, where that isn't ``host``. ``key``: to be shown first, before HTTP
    begins; then who connects knows at once whether there is anybody behind it.
    """

    host: str
    port: int
    ssl_context: ssl.SSLContext | None = None
    authority: str = ""
    server_name: str | None = None
    key: Secret | None = None


async def connect(address: UnixAddress | TcpAddress, protocol: asyncio.BaseProtocol) -> None:
    """Open a transport to ``address`` for ``protocol``. Raises OSError."""
    loop = asyncio.get_running_loop()
    if isinstance(address, TcpAddress):
        if address.key is not None:
            await _connect_with(address.key, address, protocol)
            return
        transport, _ = await loop.create_connection(
            lambda: protocol,
            address.host,
            address.port,
            ssl=address.ssl_context,
            server_hostname=address.server_name,
        )
        keep_alive(transport.get_extra_info("socket"))
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


async def _connect_with(key: Secret, address: TcpAddress, protocol: asyncio.BaseProtocol) -> None:
    """Connect, show ``key``, and hand over when it has been answered."""
    answer = _Answer()
    transport, _ = await asyncio.get_running_loop().create_connection(
        lambda: answer,
        address.host,
        address.port,
        ssl=address.ssl_context,
        server_hostname=address.server_name,
    )
    try:
        keep_alive(transport.get_extra_info("socket"))
        transport.write(KNOCK + key.reveal().encode("ascii") + b"\n")
        await answer.came.wait()
        if answer.error is not None:
            raise answer.error
        if transport.is_closing():
            raise ConnectionResetError("the connection was closed at once")
    except BaseException:
        transport.abort()
        raise
    transport.set_protocol(protocol)
    protocol.connection_made(transport)


class _Answer(asyncio.Protocol):
    """Waits for the answer to a key."""

    def __init__(self) -> None:
        self.came = asyncio.Event()
        self.error: OSError | None = None
        self._read = b""

    def data_received(self, data: bytes) -> None:
        self._read += data
        if self._read != LET_IN and (b"\n" in data or len(self._read) > _LONGEST_ANSWER):
            text = self._read.removeprefix(TURNED_AWAY).decode("ascii", "replace").strip()
            refused = self._read.startswith(TURNED_AWAY)
            reason = text if refused else "it has not answered as a machine of a cluster does"
            self._end(ConnectionRefusedError(reason))
        elif self._read == LET_IN:
            self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        lost = ConnectionResetError("the connection was closed before the key was answered")
        self._end(exc if isinstance(exc, OSError) else lost)

    def _end(self, error: OSError | None) -> None:
        if not self.came.is_set():
            self.error = error
            self.came.set()


def keep_alive(sock: socket.socket) -> None:
    """Let the system notice, within a minute, that the machine at the other end is gone.

    It may vanish in the middle of an answer, and nothing else would ever show that.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):  # not everywhere
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
