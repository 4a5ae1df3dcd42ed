"""Several llama-servers of one model as one upstream."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from gateway.backends.affinity import Affinity
from gateway.backends.replica import Replica
from gateway.upstream import (
    MAX_BODY,
    ConnectFailed,
    Exchange,
    Fetched,
    ResponseSink,
    UpstreamError,
    UpstreamRequest,
    may_retry,
)

T = TypeVar("T")
Saved = Callable[[Replica], int]


class Several:
    """The llama-servers of one model that take requests; ``parallel``: so many at once each.

    A request goes to the one with the fewest under way; one that goes on with a conversation to
    that which had it last, unless that has too much to do.
    """

    def __init__(self, parallel: int, *, several_gateways: bool = False) -> None:
        """``several_gateways``: others send to the same ones."""
        self._parallel = parallel
        self._affinity: Affinity[Replica] = Affinity(agreed=_name if several_gateways else None)
        self._replicas: list[Replica] = []

    def __len__(self) -> int:
        return len(self._replicas)

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """Those that take requests now."""
        return tuple(self._replicas)

    def take(self, replicas: Iterable[Replica]) -> None:
        """Send to these from now on, and to no other."""
        self._replicas = [*replicas]
        for replica in self._replicas:
            replica.others = len(self._replicas) - 1

    def choose(self, prefix: tuple[bytes, ...], saved: Saved | None = None) -> Replica:
        """Return where a request goes that begins so, which counts there from now on.

        ``saved`` returns how much of it one can read back from its disk. One that had nobody there
        for another request comes last for a while. Raises :class:`ConnectFailed`.
        """
        if len(self._replicas) == 1:
            chosen = self._replicas[0]
        else:
            order = self._in_order(prefix, saved)
            if not order:
                raise ConnectFailed("no copy of the model is there")
            now = time.monotonic()
            chosen = min(order, key=lambda replica: replica.doubted_until > now)
            self._affinity.note(prefix, chosen)
        chosen.take()
        return chosen

    @property
    def exchanges(self) -> int:
        """The number of exchanges under way."""
        return sum(replica.pool.exchanges for replica in self._replicas)

    async def send(self, request: UpstreamRequest, sink: ResponseSink) -> Exchange:
        """See :meth:`UpstreamPool.send`. Where it could not be sent, the next one gets it."""

        async def send(replica: Replica) -> Exchange:
            return await replica.pool.send(request, sink)

        return await self._one_after_the_other(send, request.prefix)

    async def fetch(
        self, request: UpstreamRequest, *, timeout: float, max_body: int = MAX_BODY
    ) -> Fetched:
        """See :meth:`UpstreamPool.fetch`."""

        async def fetch(replica: Replica) -> Fetched:
            return await replica.pool.fetch(request, timeout=timeout, max_body=max_body)

        return await self._one_after_the_other(fetch, ())

    async def _one_after_the_other(
        self, ask: Callable[[Replica], Awaitable[T]], prefix: tuple[bytes, ...]
    ) -> T:
        failed: UpstreamError = ConnectFailed("no copy of the model is there")
        for replica in self._in_order(prefix):
            try:
                return await ask(replica)
            except UpstreamError as error:
                if not may_retry(error, body_at_hand=True):
                    raise
                failed = error
        raise failed

    def _in_order(self, prefix: tuple[bytes, ...], saved: Saved | None = None) -> list[Replica]:
        order = sorted(self._replicas, key=lambda replica: replica.in_flight)
        if prefix:
            parallel = self._parallel * len(order)
            if (known := self._affinity.choose(prefix, order, parallel, saved)) is not None:
                order.remove(known)
                order.insert(0, known)
        # Of two that are equally busy, the one that was chosen before comes last.
        self._replicas.sort(key=lambda replica: replica in order[:1])
        return order


def _name(replica: Replica) -> bytes:
    return replica.name.encode()
