"""A port for TLS whose handshakes count as connections and end in time.

``loop.create_server(ssl=...)`` tells nobody of a connection before its handshake is done, so
those that never finish one are neither counted nor seen. Here a connection is counted when it is
accepted, and one too many is closed before it costs any cryptography.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import socket
import ssl
from collections.abc import Callable, Iterable
from functools import partial

from gateway.http import plain_http
from gateway.http.connections import Connections
from gateway.http.fast_json import FastConnection
from gateway.tasks import cancel_and_wait, spawn

_log = logging.getLogger(__name__)

_BACKLOG = 128
#: Connections accepted in one go, so that a flood of them doesn't hold up everything else.
_AT_ONCE = 64
#: How many refused connections at once are told why; for the others a TLS handshake isn't worth it.
_TOLD_WHY = 16
#: The least number of seconds for a handshake, even one that begins late.
_AT_LEAST = 0.1
#: Seconds without accepting when file descriptors or memory run out (as in asyncio).
_BREATHER = 1.0
_FULL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class TlsPort:
    """A port that listens from :meth:`open` to :meth:`stop`; :meth:`close` ends the handshakes
    under way.

    ``factory`` makes the protocol of a new connection; ``patience`` is how long its handshake
    may take, in seconds.
    """

    def __init__(
        self,
        factory: Callable[[], FastConnection],
        context: ssl.SSLContext,
        connections: Connections,
        *,
        patience: float,
    ) -> None:
        self._factory = factory
        self._context = context
        self._connections = connections
        self._patience = patience
        self._sockets: list[socket.socket] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        self._refusals = 0
        self._say_at = -math.inf

    async def open(self, host: str, port: int) -> None:
        """Listen on every address of ``host``, and where it did before. Raises ``OSError``."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        opened: list[socket.socket] = []
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                opened.append(socket.create_server(address, family=family, backlog=_BACKLOG))
        except OSError:
            for listening in opened:
                listening.close()
            self.stop()
            raise
        self.take(opened)

    def take(self, sockets: Iterable[socket.socket]) -> None:
        """Accept connections at ``sockets``, which listen already, and close them at the end."""
        loop = asyncio.get_running_loop()
        for listening in sockets:
            listening.setblocking(False)
            self._sockets.append(listening)
            loop.add_reader(listening, self._accept, listening)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """The addresses it listens on, as host and port."""
        return [listening.getsockname()[:2] for listening in self._sockets]

    @property
    def handshakes(self) -> int:
        """The number of handshakes under way."""
        return len(self._handshakes)

    def stop(self) -> None:
        """Accept nobody any more."""
        loop = asyncio.get_running_loop()
        for listening in self._sockets:
            loop.remove_reader(listening)
            listening.close()
        self._sockets.clear()

    async def close(self) -> None:
        """Stop, and end what has not become a connection yet."""
        self.stop()
        await cancel_and_wait(*self._handshakes)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                accepted, peer = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                self._breathe(listening, error)
                return
            self._greet(accepted, peer)

    def _greet(self, accepted: socket.socket, peer: tuple[str, int]) -> None:
        network, refusal = self._connections.count_or_refuse(peer)
        if refusal is not None and self._refusals >= _TOLD_WHY:
            accepted.close()
            return
        accepted.setblocking(False)
        connection = self._factory()
        connection.counted(network, refusal)
        handshake = spawn(
            self._meet(connection, accepted, peer[0], refusal), name=f"handshake {peer[0]}"
        )
        self._handshakes.add(handshake)
        handshake.add_done_callback(self._handshakes.discard)
        if refusal is not None:
            self._refusals += 1
            handshake.add_done_callback(self._refused)

    async def _meet(
        self,
        connection: FastConnection,
        accepted: socket.socket,
        address: str,
        refusal: bytes | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._patience
        ours = True  # to close
        try:
            async with asyncio.timeout_at(end):
                if await plain_http.speaks_http(accepted):
                    say = partial(self._say_https, address, refusal)
                    await plain_http.answer(accepted, say)
                    return
            ours = False
            await loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=max(end - loop.time(), _AT_LEAST),
            )
        except OSError as error:  # ssl.SSLError is one: scanners, old clients, who just left
            _log.debug("a handshake came to nothing: %s", error)
        finally:
            if ours:
                accepted.close()
            connection.handshake_ended()

    def _say_https(self, address: str, refusal: bytes | None, start: bytes) -> bytes:
        return refusal or self._connections.refuse(start, plain_http.HttpsOnly(), address)

    def _refused(self, _handshake: asyncio.Task[None]) -> None:
        self._refusals -= 1

    def _breathe(self, listening: socket.socket, error: OSError) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)
        loop.call_later(_BREATHER, self._accept_again, listening)
        if loop.time() >= self._say_at:
            _log.error("no connection can be accepted: %s", error.strerror)
            self._say_at = loop.time() + 60

    def _accept_again(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)
