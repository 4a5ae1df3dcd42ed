"""One model in the scheduler: its backend, the requests that wait for it, and its plans.

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

#: The least number of seconds for which a model counts as in use after its last request.
LINGER = 1.0
#: The states in which it may be started again after a wait.
WAITS = (State.BACKOFF, State.FAILED)
#: Those in which it is there, or is about to be.
_THERE = (State.STARTING, State.READY, State.DRAINING)


@dataclass(slots=True, eq=False)
class Waiter:
    """A caller that waits for a lease, or only for the model to be ready (result ``None``)."""

    future: asyncio.Future[Any]
    since: float
    task: asyncio.Task[Any] | None  # who waits, to find it again
    explicit: bool = False  # it is an administrator's wish, or gateway.yaml's


@dataclass(frozen=True, slots=True)
class Stay:
    """For how many seconds a request has asked to keep a model, and when it was last used then.

    It holds until the model is used again, and for no other process than the one that it was said
    of.
    """

    seconds: float
    since: float


@dataclass(slots=True, eq=False)
class ScheduledModel:
    """A model with its backend and its waiters."""

    spec: Model
    backend: Backend
    #: The slots of ``spec``, except while its model is on trial: see :class:`Leases`.
    slots: int = field(init=False)
    queue: deque[Waiter] = field(default_factory=deque)  # want a lease
    loaders: deque[Waiter] = field(default_factory=deque)  # want it loaded
    #: Whether it takes one request at a time, because one may have killed it.
    on_trial: bool = False
    in_flight: int = 0
    #: How many requests in flight need no slot for now, so that others may use theirs.
    lent: int = 0
    last_used: float = 0.0
    #: The length, in seconds, of the last pause between two requests.
    gap: float | None = None
    #: When it last competed for memory with another model that was in use.
    vied: float = -math.inf
    #: When somebody who only wanted it loaded was last told that it is.
    last_loaded: float = 0.0
    stay: Stay | None = None
    #: Whether its process is there because an administrator, or the configuration, wants it. Then
    #: nobody else shortens its stay.
    steady: bool = False
    #: Whether it is to be unloaded: on request, or because its entry in models.json has changed.
    unload: bool = False
    #: Whether memory ran out while it was loading, so that it is tried once more without any other
    #: model.
    alone: bool = False
    #: The last news of its backend: its death, why a start failed, and which start was completed.
    death: GatewayError | None = None
    start_error: GatewayError | None = None
    loaded: int = 0
    #: Its placement while it is resident, and the watch over its growth.
    on: Placement = ()
    growing: asyncio.Task[None] | None = None
    held: int | None = None  # bytes, as seen last
    #: How often memory ran out in loads with less and less context.
    shrunk: int = 0
    #: The memory it may take of its devices, if its entry leaves that open.
    grant: Grant | None = None
    #: Since when it has waited for memory that other programs hold.
    short_since: float | None = None
    #: The spec for which its need of memory was last looked up.
    looked_up: Model | None = None
    looking_up: bool = False
    #: Its unique key. A model that is gone from models.json, and still to be drained, has a key
    #: that differs from its name, because a new model may get the same name.
    key: str = ""

    def __post_init__(self) -> None:
        self.take(self.spec)

    def take(self, spec: Model) -> None:
        """Be the model that ``spec`` says; the backend may be another for a while."""
        self.spec = spec
        self.count_slots()

    def count_slots(self) -> None:
        """Count the requests that it can have at once.

        Those at a copy that is leaving take no slots of the others.
        """
        most = self.spec.parallel * self.backend.copies + self.backend.parting
        self.slots = 1 if self.on_trial else most

    @property
    def resident(self) -> bool:
        """Whether a process exists, is about to, or has not been cleaned up."""
        return self.backend.resident

    @property
    def loading(self) -> bool:
        """Whether it is starting, or a failed start is being cleaned up."""
        state = self.backend.state
        never_ready = self.loaded != self.backend.starts
        return state is State.STARTING or (state is State.STOPPING and never_ready)

    @property
    def oldest_wait(self) -> float | None:
        """Since when the request that has waited longest has been waiting."""
        heads = [line[0].since for line in (self.queue, self.loaders) if line]
        return min(heads, default=None)

    @property
    def used(self) -> float:
        """When it was last used, to be loaded too; a new model counts as just used."""
        own = max(self.last_used, self.last_loaded, self.backend.ready_since or 0.0)
        return max(own, self.backend.used_elsewhere)

    def asked(self, now: float) -> None:
        """Note a request that has just come, before it is served or waits."""
        if not self.in_flight and not self.queue and self.last_used:
            self.gap = now - self.last_used

    def was_loaded(self, *, explicit: bool) -> None:
        """Note that somebody who asked for it to be loaded is told that it is."""
        self.last_loaded = time.monotonic()
        self.steady = self.steady or explicit

    def keep(self, seconds: float, default: float | None, *, admin: bool) -> None:
        """Unload it when it has been idle for so many ``seconds`` (``inf``: never), until its next
        use, instead of after ``default``, or its own time.

        Who is no administrator can't keep it longer than that, nor shorten the stay of a process
        that is there for an administrator.
        """
        if self.spec.pinned or self.in_flight or not self.resident:
            return
        if admin:
            self.steady = seconds > 0
        elif self.steady:
            return
        else:
            self.stay = None
            if (most := self.ttl(default)) is not None:
                seconds = min(seconds, most)
        self.stay = Stay(seconds, self.used)

    def ttl(self, default: float | None) -> float | None:
        """Return the seconds after which it is unloaded if it is idle; None: it stays.

        ``default``: for models whose entry says nothing.
        """
        if (stay := self.stay) is not None:
            if stay.since == self.used:
                return stay.seconds if stay.seconds < math.inf else None
            self.stay = None
        return self.spec.ttl if self.spec.ttl is not None else default

    def send_away(self) -> None:
        """Unload it when its work is done, and let no new request in."""
        self.unload = True
        self.backend.drain()


def memory_of(model: ScheduledModel) -> int | None:
    """Return bytes that a model counts for which was given what there was; ``None``:
    as it needs.
    """
    if model.backend.tuning is None or not model.resident:
        return None
    # RAM beside GPUs isn't for models alone, so their needs don't include it.
    gpus = [size for name, size in model.on if name != RAM]
    return sum(gpus or (size for _, size in model.on))


def view_of(
    model: ScheduledModel,
    demand: Demand | None,
    *,
    ttl: float | None,
    limits: SchedulingLimits,
    closing: bool,
    copy: Demand | None = None,
    places: bool = True,
) -> ModelView:
    """Return the view of ``model`` for a decision. ``demand``: its needs, ``None`` until they are
    known. ``copy``: those of one more copy, if there should be one. ``places=False``: another
    gateway decides where models run, and which go.
    """
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
        # One that has ended may have copies that have not yet.
        stopping=state is State.STOPPING
        or (model.resident and not backend.serving and state not in _THERE),
        blocked_until=blocked_until,
        in_flight=model.in_flight,
        slots=model.slots + model.lent,
        waiting=len(model.queue),
        wanted=len(model.loaders),
        oldest_wait=model.oldest_wait,
        demand=demand or NOTHING,
        copy=copy,
        on=model.on,
        copies=backend.copies_seen(),
        short_since=model.short_since,
        alone=model.alone,
        last_used=last_used,
        recent_until=last_used + linger,
        vied=model.vied,
        ready_since=backend.ready_since or 0.0,
        load_time=backend.load_seconds,
        pinned=model.spec.pinned,
        unload=model.unload,
        expires=last_used + ttl if places and ttl is not None else None,
        remote=not (backend.spec.takes_memory and places),
    )
