"""A TLS listener that strangers can't fill: of those who haven't shaken hands yet, only so many are
waited for, and the oldest makes room for the next.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final

from gateway.tasks import cancel_and_wait, spawn, spawn_lasting

_log = logging.getLogger(__name__)

#: Connections that shake hands at once, which takes milliseconds, and seconds that it may take.
_MOST: Final = 256
_HANDSHAKE: Final = 10.0
_BACKLOG: Final = 1024
#: Seconds that the other end may take to read the end of an answer: its own client may be slow. One
#: that has gone is noticed by TCP.
_LINGER: Final = 600.0
#: Seconds until it is tried again, when a connection could not be accepted.
_AGAIN: Final = 0.2


class Listener:
    """A listener; ``made`` makes the protocol of each connection that has shaken hands."""

    def __init__(self, context: ssl.SSLContext, made: Callable[[], asyncio.Protocol]) -> None:
        self._context = context
        self._made = made
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._shaking: dict[asyncio.Task[None], None] = {}  # the oldest first

    async def open(self, host: str, port: int) -> int:
        """Listen, and return the port. Raises ``OSError``."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        listener = self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setblocking(False)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        self._accepting = spawn_lasting(
            lambda: self._accept(listener), name="accept connections of the cluster"
        )
        return int(listener.getsockname()[1])

    async def close(self) -> None:
        """Listen no more, and close what hasn't shaken hands."""
        await cancel_and_wait(self._accepting)
        await cancel_and_wait(*self._shaking)
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:  # too many open files, for example
                _log.warning("a connection of the cluster is not accepted: %s", error.strerror)
                await asyncio.sleep(_AGAIN)
                continue
            shaking = spawn(self._shake_hands(connection), name="shake hands")
            self._shaking[shaking] = None
            shaking.add_done_callback(lambda task: self._shaking.pop(task, None))
            if len(self._shaking) > _MOST:
                oldest = next(iter(self._shaking))
                del self._shaking[oldest]
                oldest.cancel()

    async def _shake_hands(self, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._made,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=_HANDSHAKE,
                ssl_shutdown_timeout=_LINGER,
            )
        except OSError as error:  # ssl.SSLError is one
            _log.debug("a connection of the cluster is refused: %s", error)
