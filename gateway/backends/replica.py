"""One llama-server of a model that may have several, from its start to its end, as requests see it.

Each has slots, and so conversations, of its own. It stays the same when it takes the place of
another one that has died: see :mod:`gateway.backends.replicated`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from gateway.backends.flights import Flights
from gateway.backends.news_of_death import CERTAIN_NEWS, NEWS_OF_DEATH, reason_of
from gateway.backends.nodes import NodeRun
from gateway.backends.run import End, Run
from gateway.backends.slot_looks import SlotLooks
from gateway.errors import GatewayError
from gateway.models.local_model import LocalModel
from gateway.upstream import ConnectFailed, UpstreamError, UpstreamPool


class Replica:
    """The llama-server of one ``run`` of ``spec``; ``away``: the same run, if it is on a node.

    ``inherited``: an earlier gateway has left it.
    """

    def __init__(
        self,
        spec: LocalModel,
        run: Run,
        away: NodeRun | None,
        flights: Flights,
        *,
        inherited: bool,
    ) -> None:
        self.spec = spec
        self.flights = flights
        self.slot_looks = SlotLooks(self)
        self.inherited = inherited
        self.starts = 1
        self.deaths = 0
        self.by_request = False
        self.last_death: GatewayError | None = None
        self.accused: list[Any] = []
        self.sleeping = False
        #: The requests that were sent here, or are about to be; when the last one was over
        #: (monotonic), or it was started.
        self.in_flight = 0
        self.last_used = time.monotonic()
        #: How many others there are, which may be sent what this one doesn't take.
        self.others = 0
        #: Whether it gets no further ones.
        self.parting = False
        #: Until then others come first (monotonic): a request found nobody here.
        self.doubted_until = 0.0
        self._run = run
        self._away = away
        self._over = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def name(self) -> str:
        """A name that other gateways know it by, too, if it is on a node."""
        return self._away.name if self._away is not None else ""

    @property
    def node(self) -> str | None:
        """The node that it runs on; None: this machine."""
        return self._away.node if self._away is not None else None

    @property
    def pool(self) -> UpstreamPool:
        """The connections to it. Raises :class:`ConnectFailed` when there are none any more."""
        if (pool := self._run.pool) is None:
            raise ConnectFailed(f"a llama-server of {self.spec.name!r} is gone")
        return pool

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint that saved slots must have to fit it; None if it has ended."""
        return None if self._over.is_set() else self._run.fingerprint

    def take(self) -> None:
        """Count a request that is to be sent here."""
        self.in_flight += 1
        self._idle.clear()

    def give_back(self) -> None:
        """Count it no more."""
        self.in_flight -= 1
        self.last_used = time.monotonic()
        if not self.in_flight:
            self._idle.set()

    async def idle(self) -> None:
        """Return when no request is to be sent here, or is being answered."""
        await self._idle.wait()

    def end(self, end: End | None = None) -> None:
        """Note that it has ended; ``end``: how, if nobody asked for that."""
        if end is not None:
            self.last_death, self.by_request = end.error, end.by_request
            self.deaths += 1
        self._over.set()

    async def suspect(self, *, refused: bool = False) -> None:
        """Wait for the news of its death, if there is any; not where others take the request."""
        if refused:
            self.doubted_until = time.monotonic() + CERTAIN_NEWS
            if self.others:
                return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CERTAIN_NEWS if refused else NEWS_OF_DEATH):
                await self._over.wait()

    async def reason(self, error: UpstreamError, deaths: int) -> GatewayError:
        """Return its death, where that is it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NEWS_OF_DEATH):
                await self._over.wait()
        return reason_of(error, self, deaths)
