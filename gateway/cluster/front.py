"""The way from another machine to the servers of this one: TLS in front of the Unix sockets of
llama-servers, and of the loopback ports of rpc-servers.

One port for all of them. Who connects must have a certificate of the cluster, and says first by
which door it wants in (``LLM-GATEWAY/1 KEY``); each start of a llama-server has a door of its own,
with a key of its own. The answer is ``OK`` when the llama-server has taken the connection, or
``NO`` and the reason: a request that follows has reached it, and one that could not is known not to
have. After that nothing is parsed: bytes go both ways as they come. Who gives no key tries the way.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import ssl
from pathlib import Path
from typing import Final

from gateway.backends.flights import Flight, Flights
from gateway.cluster.both_ways import FarEnd, NearEnd
from gateway.cluster.listener import Listener
from gateway.secret import Secret
from gateway.tasks import spawn
from gateway.upstream import TcpAddress, UnixAddress
from gateway.upstream.address import KNOCK, LET_IN, TURNED_AWAY, connect, keep_alive

_log = logging.getLogger(__name__)

#: Seconds for the line that follows the handshake, and for a llama-server to take a connection.
_PATIENCE: Final = 5.0
_LONGEST_KNOCK: Final = 128


class Front:
    """A listener and its doors. ``context``: see :func:`gateway.cluster.ca.server_context`."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._listener = Listener(context, lambda: _Caller(self))
        self.closed = False
        self._doors: dict[bytes, Door] = {}  # by a hash: looking for it tells nothing of a key
        self._callers: set[_Caller] = set()  # haven't found a door yet

    @property
    def outside(self) -> int:
        """The number of connections that haven't found a door yet."""
        return len(self._callers)

    async def listen(self, host: str, port: int = 0) -> int:
        """Listen, and return the port. Raises ``OSError``."""
        return await self._listener.open(host, port)

    def add(self, socket: Path | None = None) -> Door:
        """Open a door to the server at a Unix socket, which need not be there yet; without, where
        :attr:`Door.address` will be.
        """
        door = Door(self, None if socket is None else UnixAddress(str(socket)))
        self._doors[_hashed(door.key.reveal().encode())] = door
        return door

    async def close(self) -> None:
        """Close every connection, and listen no more."""
        self.closed = True
        await self._listener.close()
        for door in list(self._doors.values()):
            door.close()
        for caller in list(self._callers):
            caller.end()


class Door:
    """A way to one server. Made by :meth:`Front.add`.

    ``busy``: how many connections have brought something that nothing has been answered to yet.
    ``flights``: those that are in, and those that have left; what they ask isn't looked at.
    """

    def __init__(self, front: Front, address: UnixAddress | TcpAddress | None) -> None:
        self.key = Secret(secrets.token_hex(32))
        self.address = address
        self.busy = 0
        #: How many times something has been asked in all.
        self.asked = 0
        self.open = True
        self._front = front
        self.flights = Flights()
        self._callers: dict[_Caller, Flight] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._callers)

    def close_new(self) -> None:
        """Let nobody in any more; those who are in may stay."""
        self.open = False

    async def idle(self) -> None:
        """Return when nobody is in."""
        await self._empty.wait()

    def close(self) -> None:
        """Close it for good, and every connection through it."""
        self.open = False
        self._front._doors.pop(_hashed(self.key.reveal().encode()), None)
        for caller in list(self._callers):
            caller.end()

    def entered(self, caller: _Caller) -> None:
        """Note that somebody is in."""
        self._callers[caller] = self.flights.begin("", None)
        self._empty.clear()

    def left(self, caller: _Caller) -> None:
        """Note that somebody has left."""
        if (flight := self._callers.pop(caller, None)) is not None:
            self.flights.end(flight, complete=False)
        if not self._callers:
            self._empty.set()


class _Caller(NearEnd):
    """A connection from another machine, and the one that goes on from it."""

    __slots__ = ("_door", "_front", "_knock", "_opening", "_timer", "waits")

    _timer: asyncio.TimerHandle

    def __init__(self, front: Front) -> None:
        super().__init__()
        self._front = front
        self._door: Door | None = None
        self._knock = b""
        self._opening: asyncio.Task[None] | None = None
        self.waits = False  # for the first byte of an answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a Protocol gets a Transport
        self._front._callers.add(self)
        if self._front.closed:  # while it was shaking hands
            self._transport.abort()
        keep_alive(transport.get_extra_info("socket"))
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_PATIENCE, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        inner = self._far
        if inner is None:
            self._knocks(data)
            return
        if not self.waits:
            self.waits = True
            self._door.asked += 1  # type: ignore[union-attr]
            self._door.busy += 1  # type: ignore[union-attr]  # there is one, with an inner transport
        if not inner.is_closing():
            inner.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._front._callers.discard(self)
        if self._opening is not None:
            self._opening.cancel()
        self.drop_far()  # llama-server stops working at what nobody waits for
        if self._door is not None:
            self.answered()
            self._door.left(self)

    def end(self) -> None:
        """Close at once."""
        self._transport.abort()

    # --- the door ------------------------------------------------------------------------------

    def _knocks(self, data: bytes) -> None:
        self._knock += data
        if self._opening is not None or len(self._knock) > _LONGEST_KNOCK:
            self._transport.abort()  # it must wait for the answer
        elif self._knock == KNOCK + b"\n":
            self._transport.write(LET_IN)  # it is here to try the way, and leaves again
        elif data.endswith(b"\n"):
            self._timer.cancel()
            self._opening = spawn(self._enter(), name="a connection of the cluster")

    async def _enter(self) -> None:
        key = self._knock.removeprefix(KNOCK)
        door = self._front._doors.get(_hashed(key[:-1])) if key != self._knock else None
        if door is None:
            self._turn_away("it knows no such key: what this was the key of has ended")
            return
        if not door.open or door.address is None:
            self._turn_away("it takes no new connections")
            return
        inner = FarEnd(self)
        try:
            async with asyncio.timeout(_PATIENCE):
                await connect(door.address, inner)
        except (OSError, TimeoutError) as error:
            reason = getattr(error, "strerror", None) or "no answer in time"
            self._turn_away(f"its server cannot be reached: {reason}")
            return
        if self._transport.is_closing() or not door.open:
            if not inner.transport.is_closing():
                inner.transport.abort()
            self._transport.abort()
            return
        self._opening = None
        self._front._callers.discard(self)
        self._door, self._far = door, inner.transport
        door.entered(self)
        self._transport.write(LET_IN)

    def _turn_away(self, reason: str) -> None:
        _log.info("a connection of the cluster is refused: %s", reason)
        self._transport.write(TURNED_AWAY + reason.encode("ascii", "replace") + b"\n")
        self._transport.close()

    # --- from the server -----------------------------------------------------------------------

    def take(self, data: bytes) -> None:
        """Send on what the server has answered."""
        if self.waits:
            self.answered()
        self._transport.write(data)

    def answered(self) -> None:
        """Note that an answer has begun, or that none will."""
        if self.waits:
            self.waits = False
            assert self._door is not None
            self._door.busy -= 1

    def far_lost(self, exc: Exception | None) -> None:
        """Close when everything that the server has sent is with the other end."""
        self._transport.close()


def _hashed(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
