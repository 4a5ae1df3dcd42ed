"""The status of one model, for reports."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from gateway.backends.backend import ServerStatus, State
from gateway.backends.scheduled_model import WAITS, ScheduledModel, memory_of
from gateway.names import HERE

#: How many waiting requests of a model are listed one by one.
LINE = 50


class QueuePosition(NamedTuple):
    """The place of a waiting request in the queue."""

    stage: State  # of the backend it waits for
    position: int  # in that model's queue; 1 is next


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """The status of one model, for reports. Times in seconds."""

    name: str
    state: State
    state_seconds: float  # for how long it has been in this state
    stage: str | None  # what a start is at, where that is not the load itself
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
    nodes: tuple[str, ...]  # the machines that it is on; here: this one
    unload_in: float | None  # until it is unloaded if nobody uses it; None: it stays, or is used
    degraded: str | None  # why it runs on the CPU though it should not
    chosen: dict[str, Any] | None  # where its entry leaves something open: see Tuning.report
    servers: tuple[ServerStatus, ...]  # of a remote model


def status_of(
    model: ScheduledModel, now: float, memory: int | None, ttl: float | None
) -> ModelStatus:
    """Return the status of ``model`` for reports. ``memory``: the bytes that it needs, if known."""
    backend, resident = model.backend, model.resident
    up = backend.state in (State.READY, State.DRAINING) and backend.ready_since is not None
    return ModelStatus(
        name=model.spec.name,
        state=backend.state,
        state_seconds=now - backend.since,
        stage=backend.stage,
        progress=backend.progress,
        in_flight=model.in_flight - model.lent,
        queued=len(model.queue) + len(model.loaders) + model.lent,
        waited=now - oldest if (oldest := model.oldest_wait) is not None else None,
        line=tuple(now - waiter.since for waiter in islice(model.queue, LINE)),
        slots=model.spec.parallel * backend.copies,
        pid=backend.pid,
        uptime=now - (backend.ready_since or now) if up else None,
        load_seconds=backend.load_seconds,
        starts=backend.starts,
        deaths=backend.deaths,
        start_failed=backend.start_failed,
        last_error=backend.last_error.message if backend.last_error else None,
        retry_in=max(0.0, backend.retry_at - now) if backend.state in WAITS else None,
        memory=memory_of(model) or memory or None,
        memory_held=model.held if resident else None,
        devices=tuple(name for name, _ in model.on) if resident else (),
        memory_on=dict(model.on) if resident else {},
        nodes=_nodes(model) if resident and model.spec.ours else (),
        unload_in=_unload_in(model, now, ttl),
        degraded=backend.degraded if resident else None,
        chosen=backend.tuning.report() if backend.tuning is not None and resident else None,
        servers=backend.servers,
    )


def _nodes(model: ScheduledModel) -> tuple[str, ...]:
    """Return where it is; one that takes no device is where its backend says."""
    devices = [name for name, _ in model.on]
    found = {name.rpartition("/")[0] or HERE for name in devices}
    return tuple(sorted(found or {model.backend.node or HERE}))


def _unload_in(model: ScheduledModel, now: float, ttl: float | None) -> float | None:
    busy = model.in_flight or model.queue or model.loaders
    if ttl is None or busy or model.backend.state is not State.READY:
        return None
    return max(0.0, model.used + ttl - now)
