"""One model as the scheduler keeps it: its backend, who waits for it and what is to become of it.

How far it is, its backend alone knows (:attr:`Backend.state`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.backends.backend import Backend, State
from gateway.backends.decision import NOTHING, ModelView, SchedulingLimits
from gateway.backends.placement import Demand, Placement
from gateway.backends.ram import RAM
from gateway.errors import GatewayError
from gateway.models.model import Model

if TYPE_CHECKING:
    from gateway.backends.tuning import Grant

#: Seconds for which a model without work counts as in use, after its last request, at least.
LINGER = 1.0
#: In these states it may be started again when its wait is over.
WAITS = (State.BACKOFF, State.FAILED)


@dataclass(slots=True, eq=False)
class Waiter:
    """A caller that waits for a lease, or only for the model to be ready (result ``None``)."""

    future: asyncio.Future[Any]
    since: float
    task: asyncio.Task[Any] | None  # who waits, to find it again


@dataclass(slots=True, eq=False)
class ScheduledModel:
    """A model with its backend and its waiters."""

    spec: Model
    backend: Backend
    #: Those of ``spec``, but for one that is being found out about: see :class:`Leases`.
    slots: int = field(init=False)
    queue: deque[Waiter] = field(default_factory=deque)  # want a lease
    loaders: deque[Waiter] = field(default_factory=deque)  # want it loaded
    in_flight: int = 0
    #: Of those in flight, so many use no slot for now: others may have theirs.
    lent: int = 0
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
    looked_up: Model | None = None
    #: Its name among all models. One that is gone from models.json, and still to be drained,
    #: has a name of its own, because a new one may come that is called the same.
    key: str = ""

    def __post_init__(self) -> None:
        self.take(self.spec)

    def take(self, spec: Model) -> None:
        """Be the model that ``spec`` says; the backend may be another for a while."""
        self.spec, self.slots = spec, spec.parallel

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

    @property
    def oldest_wait(self) -> float | None:
        """Since when the one who has waited longest has been waiting."""
        heads = [line[0].since for line in (self.queue, self.loaders) if line]
        return min(heads, default=None)

    @property
    def used(self) -> float:
        """When it was last used. One that has just come is not an old one."""
        return max(self.last_used, self.backend.ready_since or 0.0)

    def asked(self, now: float) -> None:
        """Note a request that has just come, before it is served or waits."""
        if not self.in_flight and not self.queue and self.last_used:
            self.gap = now - self.last_used

    def send_away(self) -> None:
        """Have it go when its work is done; nobody new gets in."""
        self.unload = True
        self.backend.drain()


def memory_of(model: ScheduledModel) -> int | None:
    """Return bytes that a model counts for which was given what there was; ``None``:
    as it needs.
    """
    if model.backend.tuning is None or not model.resident:
        return None
    # RAM beside GPUs is not for models alone, and not in what they need either.
    gpus = [size for name, size in model.on if name != RAM]
    return sum(gpus or (size for _, size in model.on))


def view_of(
    model: ScheduledModel,
    demand: Demand | None,
    *,
    ttl: float | None,
    limits: SchedulingLimits,
    closing: bool,
) -> ModelView:
    """For a decision. ``demand``: what it needs, ``None`` while that is being looked up."""
    backend, state = model.backend, model.backend.state
    last_used = model.used
    linger = min(limits.linger, max(LINGER, backend.load_seconds or 0.0))
    if model.gap is not None and model.gap > linger:
        linger = 0.0  # its clients come back later than that
    blocked_until = backend.retry_at if state in WAITS else 0.0
    if demand is None and not model.resident:
        blocked_until = time.monotonic() + 1.0  # it is being looked up
    return ModelView(
        name=model.key,
        resident=model.resident,
        starting=state is State.STARTING,
        ready=backend.serving and not closing,
        draining=state is State.DRAINING,
        stopping=state is State.STOPPING,
        blocked_until=blocked_until,
        in_flight=model.in_flight,
        slots=model.slots + model.lent,
        waiting=len(model.queue),
        wanted=len(model.loaders),
        oldest_wait=model.oldest_wait,
        demand=demand or NOTHING,
        on=model.on,
        short_since=model.short_since,
        alone=model.alone,
        last_used=last_used,
        recent_until=last_used + linger,
        vied=model.vied,
        ready_since=backend.ready_since or 0.0,
        load_time=backend.load_seconds,
        pinned=model.spec.pinned,
        unload=model.unload,
        expires=None if ttl is None else last_used + ttl,
        remote=not backend.spec.takes_memory,
    )
