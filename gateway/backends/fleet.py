"""The remote servers of one model: which of them are up, and which one gets a request.

A request goes to the server that is up and has the fewest under way; one that goes on with a
conversation to the server that had it last, unless that has too much to do: what it has read of it
need not be computed again (:mod:`gateway.backends.affinity`). Where it could not even be
sent, the next one gets it (:mod:`gateway.upstream.retry`); once it has been sent it stays where it
is, because an answer, and what it costs, may be on its way. While all are down each is tried, since
that tells at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from gateway.backends.affinity import Affinity
from gateway.backends.logring import LogRing
from gateway.backends.server import KeyRefused, Server, Tempo
from gateway.models.endpoints import Endpoint
from gateway.upstream import (
    MAX_BODY,
    ConnectFailed,
    ConnectTimeout,
    Exchange,
    Fetched,
    ResponseSink,
    UpstreamError,
    UpstreamRequest,
    may_retry,
)

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Unreachable(ConnectFailed):
    """502: every server was tried, and the request could be sent to none."""

    exhausted = True


class UnreachableInTime(ConnectTimeout):
    """504: every server was tried, and none accepted a connection or answered in time."""

    exhausted = True


def _url(server: Server) -> bytes:
    return server.endpoint.url.encode()


class Fleet:
    """All servers of one model, as one upstream. ``changed`` is called when one's state changes.

    ``timeout``: seconds that a server may take until its answer begins. ``several_gateways``:
    others send to the same servers.
    """

    def __init__(
        self,
        model: str,
        endpoints: Iterable[Endpoint],
        key: str | None,
        context: ssl.SSLContext | None,
        *,
        parallel: int,
        timeout: float,
        tempo: Tempo,
        log: LogRing,
        changed: Callable[[], None],
        several_gateways: bool = False,
    ) -> None:
        every = list(endpoints)
        self._model = model
        self._log = log
        self._told = changed
        self._closed = False
        self.servers = [
            Server(
                endpoint,
                key,
                context,
                name=model if len(every) == 1 else f"{model} (server {number})",
                max_connections=parallel + 8,  # requests with a slot, and unqueued ones
                head_timeout=timeout,
                tempo=tempo,
                changed=self._changed,
            )
            for number, endpoint in enumerate(every, 1)
        ]
        self._rota = list(self.servers)
        self._parallel = parallel
        self._affinity: Affinity[Server] | None = None
        if len(every) > 1:
            self._affinity = Affinity(agreed=_url if several_gateways else None)

    @property
    def any_up(self) -> bool:
        """Whether a server is known to be up."""
        return any(server.up for server in self.servers)

    @property
    def all_down(self) -> bool:
        """Whether every server is known to be down."""
        return all(server.up is False for server in self.servers)

    @property
    def exchanges(self) -> int:
        """The number of exchanges under way, at all servers."""
        return sum(server.pool.exchanges for server in self.servers)

    async def send(self, request: UpstreamRequest, sink: ResponseSink) -> Exchange:
        """See :meth:`UpstreamPool.send`. Raises :class:`Unreachable` if no server takes the
        request.
        """

        async def send(server: Server) -> Exchange:
            exchange = await server.send(request, sink)
            if not server.up:
                server.look_again()
            if request.prefix and self._affinity is not None:
                self._affinity.note(request.prefix, server)
            return exchange

        return await self._one_after_the_other(send, request.prefix)

    async def fetch(
        self, request: UpstreamRequest, *, timeout: float, max_body: int = MAX_BODY
    ) -> Fetched:
        """See :meth:`UpstreamPool.fetch`. Raises :class:`Unreachable` if no server takes the
        request.
        """

        async def fetch(server: Server) -> Fetched:
            fetched = await server.fetch(request, timeout=timeout, max_body=max_body)
            if fetched.status == 401:
                raise KeyRefused(server.name)
            return fetched

        return await self._one_after_the_other(fetch)

    async def _one_after_the_other(
        self, ask: Callable[[Server], Awaitable[T]], prefix: tuple[bytes, ...] = ()
    ) -> T:
        for server in self._in_order(prefix):
            try:
                return await ask(server)
            except UpstreamError as error:
                # Of a streamed body nothing has been read, either, where no server has begun.
                if not may_retry(error, body_at_hand=True):
                    raise
                self._refused(server, error)
        raise self.failure()

    def failure(self) -> UpstreamError:
        """Return why no server can be reached; not where they are, which is for administrators."""
        if all(server.timed_out for server in self.servers):
            kind: type[UpstreamError] = UnreachableInTime
        else:
            kind = Unreachable
        reasons = [f"{server.name}: {server.error or 'no reason'}" for server in self.servers]
        if len(reasons) == 1:
            reason = self.servers[0].error or "it is being let go of"
            return kind(f"the server of {self._model!r} cannot be used: {reason}")
        return kind(f"no server of {self._model!r} can be used: {'; '.join(reasons)}")

    async def look_again(self, seconds: float) -> None:
        """Look at every server now; return when that is done, or after ``seconds``."""
        looks = [server.look_again() for server in self.servers]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for look in looks:
                    await look.wait()

    async def close(self) -> None:
        """Close every connection."""
        self._closed = True
        await asyncio.gather(*(server.close() for server in self.servers))

    def _in_order(self, prefix: tuple[bytes, ...]) -> list[Server]:
        """Return the servers to try, in order.

        Those that are up, the one that had ``prefix`` and then idle ones first; behind them those
        that nobody has looked at yet, for the first of several that answers makes the model ready;
        if there are neither, all.
        """
        candidates = [server for server in self._rota if server.up is not False] or [
            server for server in self._rota if not server.useless
        ]
        order = sorted(candidates, key=lambda server: (not server.up, server.pool.exchanges))
        if prefix and self._affinity is not None:
            up = [server for server in order if server.up]
            if (known := self._affinity.choose(prefix, up, self._parallel)) is not None:
                order.remove(known)
                order.insert(0, known)
        # Of two that are equally busy, the one that was chosen before comes last.
        self._rota.sort(key=lambda server: server in order[:1])
        return order

    def _refused(self, server: Server, error: UpstreamError) -> None:
        if not self._closed:
            server.refused(error)

    def _changed(self, server: Server) -> None:
        url, model = server.endpoint.url, self._model
        if server.up:
            _log.info("model %s: %s is up", model, url)
            self._log.append(f"{url} is up")
        else:
            _log.warning("model %s: %s is down: %s", model, url, server.error)
            self._log.append(f"{url} is down: {server.error}")
        self._told()
