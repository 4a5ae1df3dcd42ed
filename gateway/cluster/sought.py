"""A run that another gateway of the same group is asked for, since that one places models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.backends.logring import LogRing
from gateway.backends.placement import Placement
from gateway.backends.run import End
from gateway.backends.tuning import Tuning
from gateway.backends.watchdog import Hang
from gateway.cluster.run import ClusterRun, RemoteChild
from gateway.models.local_model import LocalModel
from gateway.upstream import UpstreamPool


class Seeker(Protocol):
    """Who finds it: see :meth:`gateway.cluster.cluster.Cluster.seek`."""

    async def seek(self, spec: LocalModel, log: LogRing, /) -> ClusterRun: ...


class SoughtRun:
    """A run of ``spec``, wherever it turns up."""

    fingerprint: str | None = None

    def __init__(self, seeker: Seeker, spec: LocalModel, log: LogRing) -> None:
        self._seeker = seeker
        self._spec = spec
        self._log = log
        self._found: ClusterRun | None = None
        self.changed: Callable[[], None] = lambda: None
        self.used: Callable[[], None] = lambda: None
        self.stopping: Callable[[], None] = lambda: None

    @property
    def node(self) -> str:
        """The node that it has turned up on; none yet: nothing."""
        return self._found.node if self._found is not None else ""

    @property
    def name(self) -> str:
        """What all gateways call it."""
        return self._found.name if self._found is not None else ""

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that it is on."""
        return self._found.nodes if self._found is not None else ()

    @property
    def held(self) -> Placement:
        """What it has of their devices, as the scheduler calls them."""
        return self._found.held if self._found is not None else ()

    @property
    def child(self) -> RemoteChild | None:
        """Its process."""
        return self._found.child if self._found is not None else None

    @property
    def pool(self) -> UpstreamPool | None:
        """The connections to it."""
        return self._found.pool if self._found is not None else None

    @property
    def degraded(self) -> str | None:
        """Why it runs on the CPU though it shouldn't."""
        return self._found.degraded if self._found is not None else None

    @property
    def weights(self) -> int:
        """The bytes of the model's file."""
        return self._found.weights if self._found is not None else 0

    @property
    def progress(self) -> float | None:
        """How far its load is, the other gateway knows."""
        return None

    @property
    def stage(self) -> str | None:
        """What its load is at, the other gateway knows."""
        return None

    @property
    def tuning(self) -> Tuning | None:
        """What was chosen for it."""
        return self._found.tuning if self._found is not None else None

    async def prepare(self, tuning: Tuning | None, devices: tuple[str, ...]) -> None:
        """Ask for it, and return when it has turned up."""
        found = self._found = await self._seeker.seek(self._spec, self._log)
        found.changed, found.used, found.stopping = self._changed, self._used, self._stopping

    async def until_ready(self) -> RemoteChild:
        """Return when it answers."""
        assert self._found is not None
        return await self._found.until_ready()

    def refuse_the_cpu(self) -> None:
        """Leave that to who has placed it."""

    def how_it_ended(self, status: int, hung: Hang | None) -> End:
        """Return how its process ended, as its node has told."""
        assert self._found is not None
        return self._found.how_it_ended(status, hung)

    async def disconnect(self) -> None:
        """Close every connection to it."""
        if self._found is not None:
            await self._found.disconnect()

    async def end(self) -> None:
        """End what is left of it there."""
        if self._found is not None:
            await self._found.end()

    async def let_go(self) -> None:
        """Close the connections, and leave it running for whoever finds it."""
        if self._found is not None:
            await self._found.let_go()

    def _changed(self) -> None:
        self.changed()

    def _used(self) -> None:
        self.used()

    def _stopping(self) -> None:
        self.stopping()
