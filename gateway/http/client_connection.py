"""One client's connection from accept to close, under both protocols: it is counted, and cut if
necessary.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import logging
import socket
import struct
import termios
from typing import Any, Protocol

from gateway.config.settings import LimitSettings

_log = logging.getLogger(__name__)

#: The longest silence, in seconds, after which Linux can be told to probe a connection.
_LONGEST = 32767
#: A connection that is closed with this is reset, and its megabytes of unread answer are dropped.
_RESET = struct.pack("ii", 1, 0)


class Counter(Protocol):
    """A counter of connections: see :class:`gateway.http.connections.Connections`."""

    limits: LimitSettings

    def count_or_refuse(self, peer: Any) -> tuple[bytes | None, bytes | None]:
        """``(network, refusal)`` of a new connection."""

    def left(self, client: ClientConnection, network: bytes | None) -> None:
        """It has ended."""


class ClientConnection:
    """A client's connection, counted in ``connections`` from :meth:`counted`, or :meth:`made`,
    until :meth:`left`.
    """

    __slots__ = ("_refusal", "connections", "network", "transport")

    def __init__(self, connections: Counter) -> None:
        self.connections = connections
        #: The network that the connection comes from; None if it isn't counted.
        self.network: bytes | None = None
        #: The transport, kept even after aiohttp has let go of it, until the connection has ended.
        self.transport: asyncio.Transport | None = None
        self._refusal: bytes | None = None

    def counted(self, network: bytes | None, refusal: bytes | None) -> None:
        """What ``Connections.count_or_refuse`` said, before there was TLS to talk through."""
        self.network, self._refusal = network, refusal

    def made(self, transport: asyncio.Transport) -> bool:
        """The connection is there: whether it may stay. If not, that has been answered."""
        self.transport = transport
        if self.network is None and self._refusal is None:
            peer = transport.get_extra_info("peername")
            self.network, self._refusal = self.connections.count_or_refuse(peer)
        if self._refusal is None:
            return True
        transport.write(self._refusal)
        transport.close()
        return False

    def handshake_ended(self) -> None:
        """If it came to nothing, this is the end of the connection."""
        if self.transport is None:
            self.left()

    def watch(self) -> None:
        """Let the kernel end it if its client's network is gone for ``limits.send_timeout``.

        Such a client (a phone that leaves the Wi-Fi) sends no FIN and no RST. While nothing is
        on its way to it, it is asked for a sign of life now and then (RFC 9293, 3.8.4), thrice
        before it is given up; what is on its way must be acknowledged in that time (RFC 5482;
        tcp(7), TCP_USER_TIMEOUT: it also rules how many probes may go unanswered).
        """
        carrier = self.transport.get_extra_info("socket") if self.transport is not None else None
        if carrier is None:
            return
        patience = min(self.connections.limits.send_timeout, _LONGEST)
        step = max(1, int(patience / 12))
        with contextlib.suppress(OSError):  # its client has gone already
            carrier.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in (
                ("TCP_KEEPIDLE", max(1, int(patience) - 3 * step)),  # seconds
                ("TCP_KEEPINTVL", step),
                ("TCP_KEEPCNT", 3),
                ("TCP_USER_TIMEOUT", int(patience * 1000)),  # Linux has it
            ):
                if (option := getattr(socket, name, None)) is not None:
                    carrier.setsockopt(socket.IPPROTO_TCP, option, value)

    def left(self, reason: BaseException | None = None) -> None:
        """It has ended."""
        if isinstance(reason, TimeoutError):
            _log.info(
                "a client was out of reach, or read nothing of its answer, for %gs: cut off "
                "(limits.send_timeout)",
                self.connections.limits.send_timeout,
            )
        network, self.network = self.network, None
        self.transport = None
        self.connections.left(self, network)

    @property
    def unwritten(self) -> int:
        """The bytes of answers that have not left this process."""
        if self.transport is None:
            return 0
        try:
            return self.transport.get_write_buffer_size()
        except AttributeError:
            return 0  # asyncio's own for TLS, closed twice: it has nobody to ask any more

    @property
    def unread(self) -> int:
        """The bytes of answers that the client has not received yet.

        The kernel's too: it holds megabytes, and tells of room only when a third is free.
        """
        if self.transport is None:
            return 0
        queued = array.array("i", [0])
        # Not everywhere (tcp(7), SIOCOUTQ); AttributeError: as above.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            carrier = self.transport.get_extra_info("socket")
            fcntl.ioctl(carrier.fileno(), termios.TIOCOUTQ, queued)
        return self.unwritten + queued[0]

    def cut(self) -> None:
        """End it at once, with what is unread, also by the kernel."""
        if self.transport is not None:
            with contextlib.suppress(OSError, AttributeError):
                carrier = self.transport.get_extra_info("socket")
                carrier.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()
