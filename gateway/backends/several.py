"""Several llama-servers of one model as one upstream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from gateway.backends.affinity import Affinity
from gateway.upstream import (
    MAX_BODY,
    ConnectFailed,
    Exchange,
    Fetched,
    ResponseSink,
    Upstream,
    UpstreamError,
    UpstreamRequest,
    may_retry,
)

T = TypeVar("T")


class Several:
    """The copies of one model that take requests; ``parallel``: requests at once for each.

    A request goes to the copy with the fewest under way; one that goes on with a conversation to
    the copy that had it last, unless that has too much to do. Where it could not be sent, the next
    one gets it.
    """

    def __init__(self, parallel: int, *, several_gateways: bool = False) -> None:
        """``several_gateways``: others send to the same copies."""
        self._parallel = parallel
        self._affinity: Affinity[_Copy] = Affinity(agreed=_name if several_gateways else None)
        self._copies: list[_Copy] = []

    def __len__(self) -> int:
        return len(self._copies)

    def take(self, pools: Mapping[Upstream, str]) -> None:
        """Send to these from now on, and to no other; each with a name that all gateways know."""
        known = {copy.pool: copy for copy in self._copies}
        self._copies = [known.get(pool) or _Copy(pool, name) for pool, name in pools.items()]

    @property
    def exchanges(self) -> int:
        """The number of exchanges under way."""
        return sum(copy.pool.exchanges for copy in self._copies)

    async def send(self, request: UpstreamRequest, sink: ResponseSink) -> Exchange:
        """See :meth:`UpstreamPool.send`."""

        async def send(copy: _Copy) -> Exchange:
            exchange = await copy.pool.send(request, sink)
            self._affinity.note(request.prefix, copy)
            return exchange

        return await self._one_after_the_other(send, request.prefix)

    async def fetch(
        self, request: UpstreamRequest, *, timeout: float, max_body: int = MAX_BODY
    ) -> Fetched:
        """See :meth:`UpstreamPool.fetch`."""

        async def fetch(copy: _Copy) -> Fetched:
            return await copy.pool.fetch(request, timeout=timeout, max_body=max_body)

        return await self._one_after_the_other(fetch, ())

    async def _one_after_the_other(
        self, ask: Callable[[_Copy], Awaitable[T]], prefix: tuple[bytes, ...]
    ) -> T:
        failed: UpstreamError = ConnectFailed("no copy of the model is there")
        for copy in self._in_order(prefix):
            try:
                return await ask(copy)
            except UpstreamError as error:
                if not may_retry(error, body_at_hand=True):
                    raise
                failed = error
        raise failed

    def _in_order(self, prefix: tuple[bytes, ...]) -> list[_Copy]:
        order = sorted(self._copies, key=lambda copy: copy.pool.exchanges)
        if prefix:
            parallel = self._parallel * len(order)
            if (known := self._affinity.choose(prefix, order, parallel)) is not None:
                order.remove(known)
                order.insert(0, known)
        # Of two that are equally busy, the one that was chosen before comes last.
        self._copies.sort(key=lambda copy: copy in order[:1])
        return order


def _name(copy: _Copy) -> bytes:
    return copy.name.encode()


class _Copy:
    """The connections to one copy."""

    __slots__ = ("name", "pool")

    def __init__(self, pool: Upstream, name: str) -> None:
        self.pool = pool
        self.name = name

    @property
    def in_flight(self) -> int:
        return self.pool.exchanges
