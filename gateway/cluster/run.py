"""One run of a llama-server on a node, as its backend here sees it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

from gateway.backends.backend import OUT_OF_MEMORY
from gateway.backends.counts import Ended
from gateway.backends.fallback import GPU_REQUIRED, gpu_required
from gateway.backends.logring import LogRing
from gateway.backends.nodes import on_node
from gateway.backends.placement import Placement
from gateway.backends.run import NODE_LOST, NODE_UNREACHABLE, End
from gateway.backends.tuning import Tuning
from gateway.backends.watchdog import Hang
from gateway.cluster.link import Unreachable
from gateway.cluster.reservations import NoRoom
from gateway.cluster.told import (
    Event,
    Exited,
    Helper,
    Holds,
    Loading,
    Logged,
    NotStarted,
    Order,
    Prepared,
    Ready,
    Stopped,
    Stopping,
    Used,
)
from gateway.errors import BackendError, GatewayError, LoadFailed
from gateway.secret import Secret
from gateway.tasks import spawn
from gateway.upstream import TcpAddress, UpstreamPool

_log = logging.getLogger(__name__)

#: Connections for unqueued requests: those that need no slot.
_UNQUEUED: Final = 8
_CONNECT: Final = 5.0
#: The exit status of what ended with its node, as if it had been killed.
_GONE: Final = -9


class There(Protocol):
    """The node of a run: see :class:`gateway.cluster.known_node.KnownNode`."""

    name: str
    up: bool
    host: str
    port: int
    server_name: str

    def front(self, key: Secret, /) -> TcpAddress: ...
    async def begin(self, run: ClusterRun, /) -> None: ...
    async def kill(self, run: ClusterRun, /) -> None: ...
    async def end(self, run: ClusterRun, /, *, over: bool) -> None: ...
    async def forget(self, run: ClusterRun, /) -> None: ...
    async def take_back(self, run: ClusterRun, /) -> None: ...
    def let_go(self, run: ClusterRun, /) -> None: ...


class ClusterRun:
    """A run of ``order`` on ``node``. ``changed`` is called when it holds more, or less, memory.

    ``ready``: it is already, and is to be taken over.
    """

    def __init__(self, node: There, order: Order, log: LogRing, ready: Ready | None = None) -> None:
        self.order = order
        self.node = node.name
        self.pool: UpstreamPool | None = None
        self.degraded: str | None = None
        self.weights = 0
        self.progress: float | None = None
        self.stage: str | None = None
        #: Offers of files that its node lacks, and the nodes that make them.
        self.offers: list[Any] = []
        self.tuning: Tuning | None = None
        #: Of what runs there: what is saved of its slots stays on its node.
        self.fingerprint: str | None = None
        self.on: Placement = order.on
        self.child: RemoteChild | None = None
        #: Called when :attr:`on` has changed, or how far its load is.
        self.changed: Callable[[], None] = lambda: None
        #: Called when requests of any gateway have come to it, and when another gateway ends it.
        self.used: Callable[[], None] = lambda: None
        self.stopping: Callable[[], None] = lambda: None
        self._there = node
        self._log = log
        self._news = asyncio.Event()
        self._prepared = False
        self._ready: Ready | None = None
        self._failed: NotStarted | None = None
        self._exited: Exited | None = None
        self._lost: str | None = None
        self._over = False  # nothing of it is left there
        self.begun = ready is not None  # the node knows of it
        self._adopted = ready is not None
        if ready is not None:
            self._hear_ready(ready)

    @property
    def name(self) -> str:
        """What all gateways call it."""
        return self.order.server

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that it is on."""
        return (self.node,)

    @property
    def held(self) -> Placement:
        """What it has of their devices, as the scheduler calls them."""
        return on_node(self.node, self.on)

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or is lost."""
        return self._over or self._lost is not None

    # --- the start -----------------------------------------------------------------------------

    async def prepare(self, tuning: Tuning | None, devices: tuple[str, ...]) -> None:
        """Have the node prepare it; what its entry leaves open is chosen there."""
        if self._adopted:
            return
        try:
            await self._begin()
            await self._until(lambda: self._prepared or self._ready is not None)
        except GatewayError:
            await self.end()
            raise
        finally:
            self.stage = self.progress = None
            if self.offers:
                spawn(self._there.take_back(self), name=f"take back {self.order.spec.name}")

    async def lend(self) -> Helper:
        """Have the node lend its devices: it is to help another one."""
        await self._begin()
        await self._until(lambda: self._ready is not None)
        assert self._ready is not None
        there = self._there
        return Helper(
            self.node, self.on, there.host, there.port, there.server_name, self._ready.key
        )

    async def _begin(self) -> None:
        try:
            await self._there.begin(self)
            self.begun = True
        except (NoRoom, Unreachable) as error:
            self._over = True  # if it is there after all, it is ended when the node is heard again
            await self._there.forget(self)
            raise self._not_begun(error) from error

    async def until_ready(self) -> RemoteChild:
        """Return when it answers."""
        child = self.child = RemoteChild(self)
        await self._until(lambda: self._ready is not None)
        ready = self._ready
        assert ready is not None
        self.pool = UpstreamPool(
            self._there.front(ready.key),
            max_connections=self.order.spec.parallel + _UNQUEUED,
            connect_timeout=_CONNECT,
            silent_is_gone=True,
            name=self.order.spec.name,
        )
        self.progress = None
        return child

    async def _until(self, done: Callable[[], bool]) -> None:
        """Wait for news until ``done``. Raises what has become of it instead."""
        while not done():
            self._news.clear()
            if (failed := self._failed) is not None:
                raise LoadFailed(failed.message, detail=failed.detail, code=failed.code)
            if self._lost is not None or self._exited is not None:
                error = self.how_it_ended(None, None).error
                raise LoadFailed(error.public, detail=error.detail, code=error.code)
            await self._news.wait()

    def _not_begun(self, error: NoRoom | Unreachable) -> LoadFailed:
        if isinstance(error, NoRoom):
            code = OUT_OF_MEMORY  # another machine may have it
        else:
            code = "cluster_unreachable" if self._there.up else NODE_UNREACHABLE
        return LoadFailed(
            f"the node {self.node!r} cannot start {self.order.spec.name!r}.",
            detail=error.message,
            code=code,
        )

    def refuse_the_cpu(self) -> None:
        """Raise :class:`LoadFailed` where only a GPU will do, and it uses none."""
        if self.order.spec.require_gpu and self.degraded is not None:
            raise gpu_required(self.order.spec, self.degraded)

    # --- what the node tells -------------------------------------------------------------------

    def hear(self, event: Event) -> None:
        """Take an event of its node that is about it."""
        match event:
            case Logged():
                for line in event.lines:
                    mark = self._log.mark
                    self._log.append(line if mark is None else mark(line))
                return
            case Loading():
                self.progress, self.stage = event.part, event.stage
            case Prepared():
                self._prepared, self.on = True, event.on
                self.weights, self.degraded = event.weights, event.degraded
            case Ready():
                self._hear_ready(event)
            case Holds():
                self.on = event.on
            case NotStarted():
                self._failed, self._over = event, event.code != GPU_REQUIRED
            case Exited():
                self._exited, self._over = event, True
            case Used():
                self.used()
                return
            case Stopping():
                self.stopping()
                return
            case Stopped():
                self._over = True
                self._lost = self._lost or "it was stopped on its node"
                self.stopping()
        self._tell()

    def _hear_ready(self, ready: Ready) -> None:
        self._ready, self.on = ready, ready.on
        self.degraded, self.tuning = ready.degraded, ready.tuning
        self.fingerprint = ready.fingerprint

    def lose(self, why: str) -> None:
        """Note that its node is gone, or has started anew without it."""
        if not self._over:
            self._lost, self._over = why, True
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        if self.child is not None and (self._over or self._lost is not None):
            self.child.ended.set()
        self.changed()

    async def over(self) -> None:
        """Return when nothing of it is left."""
        while not self._over:
            self._news.clear()
            await self._news.wait()

    # --- the end -------------------------------------------------------------------------------

    def how_it_ended(self, status: int | None, hung: Hang | None) -> End:
        """Return how its process ended, as its node has told."""
        if (told := self._exited) is not None:
            error = BackendError(told.message, detail=told.detail, code=told.code)
            return End(error, told.why, told.by_request, told.counts)
        name = self.order.spec.name
        what = f"the llama-server of {name!r} is gone: {self._lost or 'its node has lost it'}."
        error = BackendError(what, code=NODE_LOST)
        return End(error, Ended.NODE_LOST, counts=False)

    def kill(self) -> None:
        """Have its process killed."""
        spawn(self._there.kill(self), name=f"kill {self.order.spec.name}")

    async def disconnect(self) -> None:
        """Close every connection to it."""
        if self.pool is not None:
            await self.pool.close()
            self.pool = None

    async def end(self) -> None:
        """End what is left of it there, and give back what was reserved."""
        await self._there.end(self, over=self._over)
        self._over, self.child = True, None
        self._news.set()

    async def let_go(self) -> None:
        """Close the connections, and leave it running for whoever finds it."""
        await self.disconnect()
        self._there.let_go(self)


class RemoteChild:
    """The process of a run on a node."""

    pid: int | None = None  # it is none of this machine's

    def __init__(self, run: ClusterRun) -> None:
        self._run = run
        self.ended = asyncio.Event()

    async def wait(self) -> int:
        """Wait until it has ended; what its status was, the run knows."""
        await self.ended.wait()
        return _GONE

    def kill(self) -> None:
        """Kill it."""
        self._run.kill()
