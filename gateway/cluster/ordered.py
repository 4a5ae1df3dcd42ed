"""What has become of one order on a node: a process with a door, told of through the journal, ended
and cleared away.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod

from gateway.backends.growth import Growth
from gateway.backends.logring import LogRing
from gateway.backends.placement import Placement, Resident
from gateway.backends.process import Child
from gateway.cluster.front import Door
from gateway.cluster.journal import Journal
from gateway.cluster.told import (
    Began,
    Holds,
    NotStarted,
    Order,
    Ready,
    ServerState,
    Stopped,
    Stopping,
    Used,
)
from gateway.errors import GatewayError
from gateway.tasks import cancel_and_wait, spawn

_log = logging.getLogger(__name__)


class Ordered(ABC):
    """The process of ``order``, behind the ``door`` of its gateway. ``what`` it is, for people.

    It begins when :meth:`begin` is called.
    """

    what: str

    def __init__(self, order: Order, journal: Journal, door: Door) -> None:
        self.order = order
        self.on: Placement = order.on
        self.ready: Ready | None = None
        self._journal = journal
        self._door = door
        self._asked = 0
        self._log = LogRing()
        self._log.listen(self._tell_line)
        self._stopping: asyncio.Task[None] | None = None
        self._serving: asyncio.Task[None]

    def begin(self) -> None:
        """Begin to start it."""
        self._journal.add(Began(self.order.server, self.order))
        self._serving = spawn(self._serve(), name=f"serve {self.order.spec.name}")

    @abstractmethod
    async def _serve(self) -> None:
        """Start it, tell of that, and return when it has ended."""

    @abstractmethod
    async def _clear_away(self) -> None:
        """End what is left of it. A call that was cancelled can be made again."""

    @property
    @abstractmethod
    def _child(self) -> Child | None:
        """Its process, while there is one."""

    def _tell_line(self) -> None:
        """Tell the last line of its log."""
        self._journal.log(self.order.server, self._log.last)

    @property
    def state(self) -> ServerState:
        """What a gateway that comes later has to know."""
        return ServerState(self.order, self.ready, tuple(self._log.tail()))

    def tell_use(self) -> None:
        """Tell whether it has been used since this was called last."""
        asked = self._door.asked
        if asked != self._asked or self._door.busy:
            self._asked = asked
            self._journal.add(Used(self.order.server))

    @property
    def connections(self) -> int:
        """The number of connections that there are to it."""
        return self._door.connections

    @property
    def resident(self) -> Resident | None:
        """Its process and its place, as a look at the memory wants them."""
        if (child := self._child) is None:
            return None
        return Resident(child.pid, self.on, settled=self.ready is not None)

    @property
    def over(self) -> bool:
        """Whether nothing of it is left."""
        return self._serving.done() and (self._stopping is None or self._stopping.done())

    async def over_with(self) -> None:
        """Return when nothing of it is left, however it ends."""
        await asyncio.wait([self._serving])
        if self._stopping is not None:
            await asyncio.wait([self._stopping])

    def stop(self, patience: float = 0.0) -> asyncio.Future[None]:
        """End it, whatever it is doing; await that nothing of it is left.

        ``patience``: seconds that connections may take to end, of other gateways of its group.
        """
        if self._stopping is None:
            self._stopping = spawn(self._stop(patience), name=f"stop {self.order.spec.name}")
        return asyncio.shield(self._stopping)

    def kill(self) -> None:
        """Kill its process: that is dealt with like any other death."""
        if (child := self._child) is not None:
            child.kill()

    async def _stop(self, patience: float) -> None:
        over = self._serving.done()
        if not over and self.ready is not None and patience:
            self._journal.add(Stopping(self.order.server))
            self._door.close_new()
            idle = spawn(self._door.idle(), name="wait for the last answer")
            await asyncio.wait(
                [self._serving, idle], timeout=patience, return_when=asyncio.FIRST_COMPLETED
            )
            await cancel_and_wait(idle)
        await cancel_and_wait(self._serving)
        await self._clear_away()
        if not over:
            self._journal.add(Stopped(self.order.server))

    def _tell_not_started(self, error: Exception, *, ran: bool) -> None:
        server, spec = self.order.server, self.order.spec
        if isinstance(error, GatewayError):
            told = NotStarted(server, error.public, error.detail, error.code, ran)
        else:
            if not isinstance(error, OSError):
                _log.error("starting %s", spec.name, exc_info=error)
            what = f"the {self.what} of {spec.name!r} cannot be started."
            told = NotStarted(server, what, str(error), "load_failed", ran)
        self._journal.add(told)

    async def _weigh(self, group: int, interval: float) -> None:
        """Tell what it holds, now and then."""
        growth = Growth(group, self.on)
        while True:
            await asyncio.sleep(interval)
            on = await growth.look()
            growth.worth_telling(on)
            if on != self.on:
                self.on = on
                self._journal.add(Holds(self.order.server, on))
