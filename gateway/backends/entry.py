"""One model as the scheduler keeps it: its backend and who waits, for decisions and for reports."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.backends.backend import Backend, ServerStatus, State
from gateway.backends.decision import NOTHING, ModelView, SchedulingLimits
from gateway.backends.placement import Demand, Placement
from gateway.backends.ram import RAM
from gateway.catalog import ModelSpec
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from gateway.backends.scheduler import Lease
    from gateway.backends.tuning import Grant

#: Seconds for which a model without work counts as in use, after its last request, at least.
LINGER = 1.0
#: So many of those who wait for a model are listed one by one.
LINE = 50
#: In these states it may be started again when its wait is over.
_WAITS = (State.BACKOFF, State.FAILED)


@dataclass(slots=True, eq=False)
class Waiter:
    """Somebody who waits for a lease, or only for the model to be ready (result ``None``)."""

    future: asyncio.Future[Lease | None]
    since: float
    task: asyncio.Task[Any] | None  # who waits, to find it again


@dataclass(slots=True, eq=False)
class Entry:
    """A model, its backend and who waits for it."""

    spec: ModelSpec
    backend: Backend
    #: Those of ``spec``, for each request: pydantic's own attributes cost ten times as much.
    slots: int = field(init=False)
    ttl: float | None = field(init=False)
    queue: deque[Waiter] = field(default_factory=deque)  # want a lease
    loaders: deque[Waiter] = field(default_factory=deque)  # want it loaded
    in_flight: int = 0
    last_used: float = 0.0
    #: Seconds between its last use and the request after that, the last time it had no work.
    gap: float | None = None
    #: When somebody waited for the place of another model, and that was in use, or the reverse.
    vied: float = -math.inf
    #: It is to go: somebody asked for that, or its entry in models.json is another one.
    unload: bool = False
    #: Memory ran out while it was loading: it is tried once more, with all others out of the way.
    alone: bool = False
    #: What was heard last of its backend: a death, why a start failed, which start was done.
    death: GatewayError | None = None
    start_error: GatewayError | None = None
    loaded: int = 0
    #: Where it is, as long as it is resident, and what looks how that grows.
    on: Placement = ()
    growing: asyncio.Task[None] | None = None
    held: int | None = None  # bytes, as seen last
    #: How often memory ran out at loads with less and less context.
    shrunk: int = 0
    #: What it may have of its devices, where its entry leaves open how much it takes.
    grant: Grant | None = None
    #: Since when it has been waiting for memory that other programs hold.
    short_since: float | None = None
    #: For which spec its need of memory was asked for last.
    looked_up: ModelSpec | None = None
    #: Its name among all entries. One that is gone from models.json, and still to be drained,
    #: has a name of its own, because a new one may come that is called the same.
    key: str = ""

    def __post_init__(self) -> None:
        self.take(self.spec)

    def take(self, spec: ModelSpec) -> None:
        """Be the model that ``spec`` says; the backend may be another for a while."""
        self.spec, self.slots, self.ttl = spec, spec.parallel, spec.ttl

    @property
    def resident(self) -> bool:
        """Whether a process exists, or is about to, or has not been cleared away."""
        return self.backend.resident

    @property
    def loading(self) -> bool:
        """Whether its start is not done, or is being cleared away after it has failed."""
        state = self.backend.state
        never_ready = self.loaded != self.backend.starts
        return state is State.STARTING or (state is State.STOPPING and never_ready)

    def send_away(self) -> None:
        """Have it go when its work is done; nobody new gets in."""
        self.unload = True
        self.backend.drain()

    def asked(self, now: float) -> None:
        """Note a request that has just come, before it is served or waits."""
        if not self.in_flight and not self.queue and self.last_used:
            self.gap = now - self.last_used

    @property
    def oldest_wait(self) -> float | None:
        """Since when the one who has waited longest has been waiting."""
        heads = [line[0].since for line in (self.queue, self.loaders) if line]
        return min(heads, default=None)


class Waiting(NamedTuple):
    """Where a waiting request stands."""

    stage: State  # of the backend it waits for
    position: int  # in that model's queue; 1 is next


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model as reports show it. Times in seconds."""

    name: str
    state: State
    state_seconds: float  # for how long it has been in this state
    progress: float | None  # how much of it is loaded, from 0 to 1, while it is starting
    in_flight: int
    queued: int
    waited: float | None  # by the one that has waited longest
    line: tuple[float, ...]  # by each request in the queue, the next one first; the first LINE
    slots: int
    pid: int | None
    uptime: float | None
    load_seconds: float | None
    starts: int
    deaths: int
    start_failed: bool  # the last start came to nothing
    last_error: str | None  # of whichever start
    retry_in: float | None
    memory: int | None  # bytes: measured, or estimated, or as models.json says
    memory_held: int | None  # bytes: what its process was seen to hold last
    devices: tuple[str, ...]  # where they are
    memory_on: dict[str, int]  # bytes that it counts for on each of them
    unload_in: float | None  # until it is unloaded if nobody uses it; None: it stays, or is used
    degraded: str | None  # why it runs on the CPU though it should not
    chosen: dict[str, Any] | None  # where its entry leaves something open: see Tuning.report
    servers: tuple[ServerStatus, ...]  # of a model elsewhere


def status_of(entry: Entry, now: float, memory: int | None, ttl: float | None) -> ModelStatus:
    """For reports. ``memory``: bytes that it needs, as far as that is known."""
    backend = entry.backend
    up = backend.state in (State.READY, State.DRAINING) and backend.ready_since is not None
    return ModelStatus(
        name=entry.spec.name,
        state=backend.state,
        state_seconds=now - backend.since,
        progress=backend.progress,
        in_flight=entry.in_flight,
        queued=len(entry.queue) + len(entry.loaders),
        waited=now - oldest if (oldest := entry.oldest_wait) is not None else None,
        line=tuple(now - waiter.since for waiter in islice(entry.queue, LINE)),
        slots=entry.spec.parallel,
        pid=backend.pid,
        uptime=now - (backend.ready_since or now) if up else None,
        load_seconds=backend.load_seconds,
        starts=backend.starts,
        deaths=backend.deaths,
        start_failed=backend.start_failed,
        last_error=backend.last_error.message if backend.last_error else None,
        retry_in=max(0.0, backend.retry_at - now) if backend.state in _WAITS else None,
        memory=memory_of(entry) or memory or None,
        memory_held=entry.held if entry.resident else None,
        devices=tuple(name for name, _ in entry.on) if entry.resident else (),
        memory_on=dict(entry.on) if entry.resident else {},
        unload_in=_unload_in(entry, now, ttl),
        degraded=backend.degraded if entry.resident else None,
        chosen=backend.tuning.report() if backend.tuning is not None and entry.resident else None,
        servers=backend.servers,
    )


def _unload_in(entry: Entry, now: float, ttl: float | None) -> float | None:
    busy = entry.in_flight or entry.queue or entry.loaders
    if ttl is None or busy or entry.backend.state is not State.READY:
        return None
    return max(0.0, _last_used(entry) + ttl - now)


def _last_used(entry: Entry) -> float:
    """One that has just come is not an old one."""
    return max(entry.last_used, entry.backend.ready_since or 0.0)


def memory_of(entry: Entry) -> int | None:
    """Bytes that a model counts for which was given what there was; ``None``: as it needs."""
    if entry.backend.tuning is None or not entry.resident:
        return None
    # RAM beside GPUs is not for models alone, and not in what they need either.
    gpus = [size for name, size in entry.on if name != RAM]
    return sum(gpus or (size for _, size in entry.on))


def view_of(
    entry: Entry,
    demand: Demand | None,
    *,
    ttl: float | None,
    limits: SchedulingLimits,
    closing: bool,
) -> ModelView:
    """For a decision. ``demand``: what it needs, ``None`` while that is being looked up."""
    backend, state = entry.backend, entry.backend.state
    ready_since = backend.ready_since or 0.0
    last_used = _last_used(entry)
    linger = min(limits.linger, max(LINGER, backend.load_seconds or 0.0))
    if entry.gap is not None and entry.gap > linger:
        linger = 0.0  # its clients come back later than that
    blocked_until = backend.retry_at if state in _WAITS else 0.0
    if demand is None and not entry.resident:
        blocked_until = time.monotonic() + 1.0  # it is being looked up
    return ModelView(
        name=entry.key,
        resident=entry.resident,
        starting=state is State.STARTING,
        ready=backend.serving and not closing,
        draining=state is State.DRAINING,
        stopping=state is State.STOPPING,
        blocked_until=blocked_until,
        in_flight=entry.in_flight,
        slots=entry.slots,
        waiting=len(entry.queue),
        wanted=len(entry.loaders),
        oldest_wait=entry.oldest_wait,
        demand=demand or NOTHING,
        on=entry.on,
        short_since=entry.short_since,
        alone=entry.alone,
        last_used=last_used,
        recent_until=last_used + linger,
        vied=entry.vied,
        ready_since=ready_since,
        load_time=backend.load_seconds,
        pinned=entry.spec.pinned,
        unload=entry.unload,
        expires=None if ttl is None else last_used + ttl,
        remote=bool(backend.spec.url),
    )
