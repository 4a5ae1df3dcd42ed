"""Limits on connections: their number, and the time for heads, bodies, and answers that nobody
reads.

One timer for all of them, and only while there is something to wait for: a request that comes
whole costs two set operations.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Protocol

from gateway.config.settings import LimitSettings
from gateway.errors import GatewayError, RateLimited, RequestTimeout, Unavailable
from gateway.http.client_connection import ClientConnection
from gateway.http.networks import network_of
from gateway.http.refusals import Refusals

#: Bytes of a body that must come in `limits.body_timeout`: half a KiB a second by default.
PROGRESS: Final = 16 * 1024
_MINUTE: Final = 60.0
#: Seconds within which a small body must arrive before the clock for bodies is started.
_MOMENT: Final = 1.0
_log = logging.getLogger(__name__)


class Arriving(Protocol):
    """A connection on which a request is coming."""

    @property
    def received(self) -> int:
        """The bytes since the clock was started."""

    def give_up(self, error: GatewayError | None, /) -> None:
        """Answer with ``error``, if given, and close: the head did not come in time."""


class Uploading(Arriving, Protocol):
    """A connection on which the body of a request is coming."""

    received: int

    @property
    def body_is_there(self) -> bool:
        """Whether all of this request has arrived."""

    @property
    def is_reading(self) -> bool:
        """Whether the client's bytes are read, or held back."""

    def give_up_body(self, error: Exception, /) -> None:
        """Let whoever reads the body fail with ``error``."""


class Resting(Protocol):
    """A connection between two requests."""

    def close(self) -> None:
        """End it."""


class Connections:
    """The connections of a gateway: where they come from, and for which of them a clock runs.

    ``trusts`` says whether an address is that of a proxy in front, whose connections are those
    of many clients.
    """

    def __init__(
        self, limits: LimitSettings, trusts: Callable[[str | None], bool], refusals: Refusals
    ) -> None:
        self.limits = limits
        self._refusals = refusals
        self._keepalive = limits.keepalive
        self._trusts = trusts
        self._count = 0
        self._by_network: Counter[bytes] = Counter()
        self._heads: dict[Arriving, float] = {}  # until when, in the loop's time
        self._bodies: dict[Uploading, float] = {}
        #: The deadline of each connection, and how much was unread at the last look.
        self._answers: dict[ClientConnection, tuple[float, int]] = {}
        self._resting: dict[Resting, float] = {}  # in the order of their ends
        self._timer: asyncio.TimerHandle | None = None
        patience = min(
            limits.header_timeout, limits.body_timeout, limits.send_timeout, limits.keepalive
        )
        self._pause = min(1.0, patience / 4)
        self._refused = 0
        self._say_at = -math.inf

    @property
    def count(self) -> int:
        """The number of connections, without those of the control socket."""
        return self._count

    @property
    def unread(self) -> int:
        """The number of connections with unread answers."""
        return len(self._answers)

    @property
    def expected_heads(self) -> int:
        """The number of connections on which the head of a request is expected, or arriving."""
        return len(self._heads)

    @property
    def is_idle(self) -> bool:
        """Whether there is no connection, and no clock of one."""
        clocks = (self._heads, self._bodies, self._answers, self._resting)
        return not (self._count or self._by_network or any(clocks))

    # --- how many ---

    def count_or_refuse(self, peer: Any) -> tuple[bytes | None, bytes | None]:
        """Count a new connection, and return ``(network, refusal)``; a refusal is the answer to
        send.

        ``peer`` is its ``peername``. A connection without a refusal must be given back by
        :meth:`left`.
        """
        if not isinstance(peer, tuple):
            return None, None  # the control socket
        address = str(peer[0])
        network = network_of(address) or b"?"
        error: GatewayError | None = None
        if self._count >= self.limits.connections:
            error = Unavailable(
                "there are too many connections (limits.connections)",
                code="too_many_connections",
                headers={"Retry-After": "5"},
            )
        elif (
            self._by_network[network] >= self.limits.connections_per_address
            and network not in _LOCAL
            and not self._trusts(address)
        ):
            error = RateLimited(
                "there are too many connections from this address (limits.connections_per_address)",
                code="too_many_connections",
                headers={"Retry-After": "5"},
            )
        if error is not None:
            self._tell(address)
            return None, self._refusals.refuse(b"", error, address, logged=False)
        self._count += 1
        self._by_network[network] += 1
        return network, None

    def left(self, client: ClientConnection, network: bytes | None) -> None:
        """A connection has ended."""
        self._answers.pop(client, None)
        if network is not None:
            self._count -= 1
            self._by_network[network] -= 1
            if not self._by_network[network]:
                del self._by_network[network]

    def _tell(self, address: str) -> None:
        """Log refused connections once a minute: a flood must not fill the log."""
        self._refused += 1
        now = asyncio.get_running_loop().time()
        if now >= self._say_at:
            _log.warning(
                "too many connections: %d refused, the last from %s (limits.connections, "
                "limits.connections_per_address)",
                self._refused,
                address,
            )
            self._refused, self._say_at = 0, now + _MINUTE

    def refuse(self, start: bytes, error: GatewayError, client: str | None) -> bytes:
        """See :meth:`gateway.http.refusals.Refusals.refuse`."""
        return self._refusals.refuse(start, error, client)

    # --- how slow ---

    def await_head(self, connection: Arriving) -> None:
        """The clock of a request's first line and headers starts."""
        self._heads[connection] = self._start() + self.limits.header_timeout

    def await_the_rest(self, connection: Arriving) -> None:
        """Start the clock for a small body, which should be on its way after the head."""
        self._heads[connection] = self._start() + _MOMENT

    def await_body(self, connection: Uploading) -> None:
        """Start the clock for a body whose head has come."""
        self._heads.pop(connection, None)
        self._bodies[connection] = self._start() + self.limits.body_timeout

    def stop_waiting(self, connection: Arriving) -> None:
        """The head is there, or nobody waits for it any more."""
        self._heads.pop(connection, None)

    def forget(self, connection: Uploading) -> None:
        """The request is there."""
        self._heads.pop(connection, None)
        self._bodies.pop(connection, None)

    def await_reader(self, client: ClientConnection) -> None:
        """More is written than goes out: its client has to read."""
        self._answers[client] = self._start() + self.limits.send_timeout, client.unread

    def has_read(self, client: ClientConnection) -> None:
        """Stop the clock for answers: the client has read enough."""
        self._answers.pop(client, None)

    def rests(self, connection: Resting) -> None:
        """Start the clock for the next request, after an answer (``limits.keepalive``)."""
        self._resting[connection] = self._start() + self._keepalive

    def works(self, connection: Resting) -> None:
        """Stop the clock for the next request: it has come."""
        self._resting.pop(connection, None)

    def _start(self) -> float:
        loop = asyncio.get_running_loop()
        if self._timer is None:
            self._timer = loop.call_later(self._pause, self._check_deadlines)
        return loop.time()

    def _check_deadlines(self) -> None:
        """Every so often: who is late?"""
        self._timer = None
        now = asyncio.get_running_loop().time()
        for connection in [c for c, until in self._heads.items() if until <= now]:
            del self._heads[connection]
            late = RequestTimeout("the request's headers came too slowly (limits.header_timeout)")
            connection.give_up(late if connection.received else None)
        for connection, until in list(self._bodies.items()):
            if connection.body_is_there:
                del self._bodies[connection]
            elif connection.received >= PROGRESS or not connection.is_reading:
                # What is held back by us (a model that loads) is not slow.
                connection.received = 0
                self._bodies[connection] = now + self.limits.body_timeout
            elif until <= now:
                del self._bodies[connection]
                connection.give_up_body(
                    RequestTimeout(
                        f"the body came too slowly: under {PROGRESS} bytes in "
                        f"{self.limits.body_timeout:g} s (limits.body_timeout)"
                    )
                )
        for client, (until, before) in list(self._answers.items()):
            unread = client.unread
            if unread < before:
                until = now + self.limits.send_timeout
            if until <= now:
                del self._answers[client]
                _log.info(
                    "a client read nothing of its answer for %gs: cut off (limits.send_timeout)",
                    self.limits.send_timeout,
                )
                client.cut()
            else:
                self._answers[client] = until, unread
        while self._resting:
            resting, until = next(iter(self._resting.items()))
            if until > now:
                break
            del self._resting[resting]
            resting.close()
        if self._heads or self._bodies or self._answers or self._resting:
            self._start()


#: Programs of this machine, and a proxy on it: they could do worse anyway.
_LOCAL = frozenset({network_of("127.0.0.1"), network_of("::1")})
