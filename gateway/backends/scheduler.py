"""The one owner of every decision about backends: queue, leases, memory, eviction.

A request asks for a :class:`Lease` and waits; what happens meanwhile is decided by
:mod:`gateway.backends.policy` from a view of all models, whenever anything changes, and carried
out here. In-flight requests are counted in one place: the lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from gateway.backends.backend import OUT_OF_MEMORY, Backend, Environment, State
from gateway.backends.decision import Act, Action, ModelView, SchedulingLimits
from gateway.backends.entry import (
    Entry,
    ModelStatus,
    Waiter,
    Waiting,
    memory_of,
    status_of,
    view_of,
)
from gateway.backends.growth import Growth
from gateway.backends.local import LocalBackend
from gateway.backends.placement import Demand, Look, Memory, Placement, Resident, taken_by
from gateway.backends.policy import decide
from gateway.backends.suspects import Suspects
from gateway.catalog import Catalog, ModelSpec
from gateway.errors import GatewayError, ModelNotFound, Unavailable
from gateway.tasks import cancel_and_wait, spawn

if TYPE_CHECKING:
    from gateway.backends.accounts import Accounts

_log = logging.getLogger(__name__)

_NOT_WATCHED = Memory()
_LOADED = (State.READY, State.DRAINING)
#: Where memory ran out though a model was given no more than there was: so often it is tried with
#: so much of what it was granted.
_SHRINKS = 2
_LESS = 0.7
#: Seconds for which a report waits for a look at the memory.
_REPORT_WAITS = 2.0


class Lease:
    """The right to send one request to one backend. Release it exactly when that is over.

    Releasing twice is harmless; a lease is a context manager.
    """

    __slots__ = ("_entry", "_scheduler", "_starts", "backend")

    def __init__(self, scheduler: Scheduler, entry: Entry) -> None:
        self._scheduler = scheduler
        self._entry: Entry | None = entry
        self.backend = entry.backend
        self._starts = entry.backend.starts

    @property
    def on_trial(self) -> bool:
        """Whether its model takes one request at a time, since a request may have ended it."""
        entry = self._entry
        return entry is not None and entry.slots < entry.spec.parallel

    def proved(self) -> None:
        """An answer comes: after a death by a request, the model has all its slots again."""
        entry = self._entry
        if entry is not None and self._starts == self.backend.starts and self.backend.serving:
            entry.slots = entry.spec.parallel
            self._scheduler._pump()

    def release(self) -> None:
        """Give the slot back."""
        entry, self._entry = self._entry, None
        if entry is not None:
            self._scheduler._released(entry)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class Scheduler:
    """Leases for models of the catalog, on backends that it starts and stops."""

    def __init__(
        self,
        catalog: Catalog,
        environment: Environment,
        limits: SchedulingLimits,
        *,
        queue_size: int,
        queue_timeout: float,
        idle_unload: float | None = None,
        memory_known: bool = True,
    ) -> None:
        """``memory_known=False``: nothing is loaded until :meth:`watch_memory`."""
        self.environment = environment
        #: How much may be loaded, and how long a newcomer is put off. May be replaced.
        self.limits = limits
        self._queue_size = queue_size
        self._queue_timeout = queue_timeout
        self._idle_unload = idle_unload
        self._accounts: Accounts | None = None
        self._memory_known = memory_known
        self._entries: dict[str, Entry] = {}
        #: Requests that models have died of.
        self.suspects = Suspects()
        self._leaving: dict[str, Entry] = {}  # gone from models.json, their process is not
        self._sockets = 0
        self._retired = 0
        self._waiting = 0
        self._listeners: set[Callable[[], None]] = set()
        #: Called with a model's name and why its process, which was ready, has died.
        self.died: Callable[[str, GatewayError], None] = lambda model, error: None
        self._alarm: asyncio.TimerHandle | None = None
        self._pumping = False
        self._again = False
        self._closing = False
        self._idle: asyncio.Event | None = None  # where somebody waits for it
        self.in_flight = 0
        environment.withheld.update(catalog.key_variables)
        for spec in catalog.models.values():
            self._add(spec)

    def watch_memory(self, accounts: Accounts, limits: SchedulingLimits) -> None:
        """Decide by memory from now on: what models need, and how much there is."""
        self._accounts = accounts
        self.limits = limits
        self._pump()

    @property
    def machine_problem(self) -> str | None:
        """What is wrong with this machine: a GPU that is gone."""
        capacity = self._accounts.capacity if self._accounts is not None else None
        return capacity.problem if capacity is not None else None

    @property
    def accounts(self) -> Accounts | None:
        """What is known of memory; ``None`` until :meth:`watch_memory`."""
        return self._accounts

    # --- asking for work ---------------------------------------------------------------------

    def try_lease(self, model: str) -> Lease | None:
        """A lease at once if the model is ready, has a free slot and nobody waits for it."""
        entry = self._entries.get(model)
        if (
            entry is None
            or entry.queue
            or not entry.backend.serving
            or entry.in_flight >= entry.slots
            or self._closing
        ):
            return None
        if not entry.in_flight:
            entry.asked(time.monotonic())
        return self._grant(entry)

    async def lease(self, model: str) -> Lease:
        """Wait for a slot of ``model``, loading it if needed.

        Raises :class:`ModelNotFound`; :class:`Unavailable` (with ``Retry-After``) when the
        queue is full, the wait is over ``queue_timeout`` or the gateway is stopping;
        :class:`LoadFailed` when the model does not come up. A cancelled waiter leaves the queue.
        """
        if (lease := self.try_lease(model)) is not None:
            return lease
        entry = self._find(model)
        self._check_queue(entry)
        granted = await self._wait(entry, entry.queue, self._queue_timeout)
        assert granted is not None
        return granted

    async def load(self, model: str, *, explicit: bool = True) -> None:
        """Have ``model`` ready.

        ``explicit``: an administrator's wish, so its earlier failures are forgotten, and it is
        waited for as long as it takes. Otherwise on the terms of :meth:`lease`.
        """
        entry = self._find(model)
        if explicit:
            entry.backend.reset()
        if entry.backend.serving:
            await entry.backend.ensure_ready()  # it is, unless all servers elsewhere are down
            return
        if not explicit:
            self._check_queue(entry)
        await self._wait(entry, entry.loaders, None if explicit else self._queue_timeout)

    def _check_queue(self, entry: Entry) -> None:
        """Raise if nobody may wait for this model."""
        backend = entry.backend
        if backend.state is State.FAILED and backend.retry_at > time.monotonic():
            raise backend.failure()
        if self._waiting >= self._queue_size:
            raise Unavailable(
                f"{self._waiting} requests are waiting already",
                code="queue_full",
                headers={"Retry-After": "5"},
            )

    async def unload(self, model: str) -> None:
        """Drain ``model`` and return when its process is gone.

        Who waits for it while it is loading, or until its load can begin, is sent away.
        """
        entry = self._find(model)
        if entry.loading or not entry.resident:
            self._fail(entry, Unavailable(f"{model!r} was unloaded while it was loading"))
        if not entry.resident:
            self._pump()
            return
        changed = asyncio.Event()
        stop_listening = self.subscribe(changed.set)
        entry.send_away()
        self._pump()
        try:
            while entry.unload:
                changed.clear()
                await changed.wait()
        finally:
            stop_listening()

    def apply(self, catalog: Catalog) -> None:
        """Take over a changed models.json, touching only what changed.

        A model whose process would be started otherwise is drained and stopped, to come back
        as the new one; one that is gone likewise, for good. Everything else just changes.
        """
        with self._undecided():
            self._take_over(catalog)

    def _take_over(self, catalog: Catalog) -> None:
        self.environment.withheld.update(catalog.key_variables)
        for name, entry in list(self._entries.items()):
            spec = catalog.models.get(name)
            if spec is None:
                del self._entries[name]
                self._fail(entry, ModelNotFound(f"the model {name!r} is gone from models.json"))
                if entry.resident:
                    entry.send_away()
                    self._retired += 1
                    entry.key = f"{name}\0{self._retired}"  # no name in models.json has a NUL
                    self._leaving[entry.key] = entry
            elif spec != entry.spec:
                same_process = spec.process_identity() == entry.spec.process_identity()
                entry.take(spec)
                if same_process and not entry.unload:
                    entry.backend.spec = spec
                elif entry.resident:
                    entry.send_away()  # the new spec goes to the backend when it has stopped
                else:
                    self._settle(entry)
        for name, spec in catalog.models.items():
            if name not in self._entries:
                self._add(spec)
        self._entries = {name: self._entries[name] for name in catalog.models}

    # --- looking ------------------------------------------------------------------------------

    def backend(self, model: str) -> Backend | None:
        """The backend of a model, whatever its state."""
        entry = self._entries.get(model)
        return entry.backend if entry else None

    def waiting(self, model: str, task: asyncio.Task[Any]) -> Waiting:
        """Where the request of ``task`` stands, which awaits :meth:`lease`."""
        entry = self._entries.get(model)
        if entry is None:
            return Waiting(State.STOPPED, 1)
        return Waiting(entry.backend.state, self.place(model, task) or 1)

    def place(self, model: str, task: asyncio.Task[Any]) -> int | None:
        """Where the request of ``task`` stands in the queue of its model; 1 is next."""
        entry = self._entries.get(model)
        queue = entry.queue if entry is not None else ()
        return next((place for place, w in enumerate(queue, 1) if w.task is task), None)

    def loaded(self) -> list[str]:
        """Names of the models that are loaded, those too that end their work."""
        return [n for n, e in self._entries.items() if e.backend.state in _LOADED]

    def status(self) -> list[ModelStatus]:
        """Every model, in the order of models.json."""
        now = time.monotonic()
        entries = self._entries.values()
        return [status_of(e, now, self._size(e.spec), self._ttl(e)) for e in entries]

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` after every change of a state or a queue; returns how to end it."""
        self._listeners.add(callback)
        return lambda: self._listeners.discard(callback)

    # --- the end ------------------------------------------------------------------------------

    def refuse_new(self) -> None:
        """From now on nobody new gets in; who waits is sent away, who works may finish."""
        self._closing = True
        for entry in self._entries.values():
            self._fail(entry, _shutting_down())

    async def idle(self) -> None:
        """Return when nothing is in flight."""
        if self.in_flight:
            self._idle = self._idle or asyncio.Event()
            self._idle.clear()
            await self._idle.wait()

    async def close(self) -> None:
        """Stop every backend, all at the same time, and return when they are gone."""
        self.refuse_new()
        if self._alarm is not None:
            self._alarm.cancel()
        every = [*self._entries.values(), *self._leaving.values()]
        growing = [entry.growing for entry in every]
        await asyncio.gather(*(entry.backend.stop() for entry in every))
        await cancel_and_wait(*growing)

    # --- how it works ---------------------------------------------------------------------------

    def _add(self, spec: ModelSpec) -> None:
        self._entries[spec.name] = Entry(spec, self._backend_for(spec), key=spec.name)

    def _backend_for(self, spec: ModelSpec) -> Backend:
        if spec.url:
            from gateway.backends.remote import RemoteBackend  # who has none starts without it

            return RemoteBackend(spec, self.environment, self._changed)
        self._sockets += 1
        return LocalBackend(spec, self.environment, f"{self._sockets}.sock", self._changed)

    def _find(self, model: str) -> Entry:
        if self._closing:
            raise _shutting_down()
        entry = self._entries.get(model)
        if entry is None:
            raise ModelNotFound(f"there is no model {model!r} in models.json")
        return entry

    def _grant(self, entry: Entry) -> Lease:
        entry.in_flight += 1
        self.in_flight += 1
        if self.in_flight == 1:
            self._notify()
        return Lease(self, entry)

    def _released(self, entry: Entry) -> None:
        entry.in_flight -= 1
        entry.last_used = now = time.monotonic()
        self.in_flight -= 1
        if self._waiting:
            self._note_rivals(entry, now)
        if self.in_flight == 0:
            if self._idle is not None:
                self._idle.set()
            self._notify()
        if self._waiting or entry.unload or (not entry.in_flight and self._ttl(entry) is not None):
            self._pump()

    def _note_rivals(self, used: Entry, now: float) -> None:
        """Who waits for a place while ``used`` is in use is another client than that one's."""
        if used.spec.url:
            return
        since = now - self.limits.late
        for entry in self._entries.values():
            oldest = entry.oldest_wait
            if oldest is None or oldest >= since or entry.resident or entry.spec.url:
                continue
            used.vied = entry.vied = now

    async def _wait(self, entry: Entry, line: deque[Waiter], timeout: float | None) -> Lease | None:
        future: asyncio.Future[Lease | None] = asyncio.get_running_loop().create_future()
        now = time.monotonic()
        waiter = Waiter(future, now, asyncio.current_task())
        if line is entry.queue:
            entry.asked(now)
        line.append(waiter)
        self._waiting += 1
        if not entry.resident:
            entry.looked_up = None  # its file may have changed since
        self._pump()
        try:
            async with asyncio.timeout(timeout):
                await asyncio.wait([future])
        except TimeoutError:
            if not future.done():
                raise _waited_too_long(entry, timeout) from None
        except asyncio.CancelledError:
            # The lease may have been granted in the very moment in which we gave up.
            if future.done() and future.exception() is None and (lease := future.result()):
                lease.release()
            raise
        finally:
            if waiter in line:
                line.remove(waiter)
                self._waiting -= 1
                self._pump()
        return future.result()

    def _fail(self, entry: Entry, error: GatewayError) -> None:
        for line in (entry.queue, entry.loaders):
            while line:
                waiter = line.popleft()
                self._waiting -= 1
                waiter.future.set_exception(copy.copy(error))  # each raises one of its own
                waiter.future.exception()  # who waits raises it; one who just left must not

    def _changed(self, backend: Backend) -> None:
        """A backend has entered another state, or has something new to tell."""
        with self._undecided():
            for entry in (*self._entries.values(), *self._leaving.values()):
                if entry.backend is backend:
                    self._hear(entry, backend)
                    break

    def _hear(self, entry: Entry, backend: Backend) -> None:
        if (death := backend.last_death) is not None and death is not entry.death:
            entry.death = death
            if backend.by_request:
                entry.slots = 1  # until one more request has gone well
            self.died(entry.spec.name, death)
        if (failure := backend.start_error) is not None and failure is not entry.start_error:
            entry.start_error = failure
            self._load_failed(entry, failure)
        elif backend.state is State.FAILED:
            self._fail(entry, backend.failure())
        elif backend.state is State.READY and entry.loaded != backend.starts:
            entry.loaded = backend.starts
            self._load_succeeded(entry)
        if entry.unload:
            backend.drain()  # it was starting when it was sent away
        self._settle(entry)

    def _settle(self, entry: Entry) -> None:
        """Once its process is gone: it has been unloaded, and may come back as another one."""
        if entry.resident:
            return
        entry.unload = False
        entry.on = ()
        entry.held = None
        if entry.growing is not None:
            entry.growing.cancel()
            entry.growing = None
        self._leaving.pop(entry.key, None)
        spec = entry.spec
        if bool(entry.backend.spec.url) is not bool(spec.url):
            entry.backend = self._backend_for(spec)
        elif entry.backend.spec is not spec:
            entry.backend.spec = spec
            entry.backend.reset()

    def _notify(self) -> None:
        if self._listeners:
            for listener in tuple(self._listeners):
                listener()

    @contextlib.contextmanager
    def _undecided(self) -> Iterator[None]:
        """Decide afterwards, once, and nothing on half of what is done meanwhile."""
        outermost, self._pumping = not self._pumping, True
        try:
            yield
        finally:
            self._pumping = not outermost
            self._pump()

    def _pump(self) -> None:
        """Decide and act until there is nothing more to do now."""
        if self._pumping:
            self._again = True
            return
        self._pumping = True
        try:
            while True:
                self._again = False
                self._look_up_needs()
                decision = decide(self._views(), self.limits, time.monotonic(), self._memory())
                self._note_short(decision.short)
                for action in decision.actions:
                    self._carry_out(action)
                if not decision.actions and not self._again:
                    break
        finally:
            self._pumping = False
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if decision.wake_at is not None and not self._closing:
            delay = max(0.0, decision.wake_at - time.monotonic()) + 0.001
            self._alarm = asyncio.get_running_loop().call_later(delay, self._pump)
        self._notify()

    def _carry_out(self, action: Action) -> None:
        entry = self._entries.get(action.model) or self._leaving[action.model]
        backend = entry.backend
        match action.act:
            case Act.GRANT:
                waiter = entry.queue.popleft()
                self._waiting -= 1
                waiter.future.set_result(self._grant(entry))
            case Act.LOADED:
                while entry.loaders:
                    self._waiting -= 1
                    entry.loaders.popleft().future.set_result(None)
            case Act.START:
                self._place(entry, action.on)
                backend.start(partial(self._choose, entry))
            case Act.STOP:
                backend.stop()
            case Act.DRAIN:
                backend.drain()
            case Act.RESUME:
                backend.undrain()
            case Act.REFUSE:
                self._fail(entry, _no_room(entry))
            case Act.GIVE_UP:
                assert self._accounts is not None
                lacking = self._accounts.lacking(entry.spec)
                _log.warning("%s", lacking.message)
                self._fail(entry, lacking)
            case Act.LOOK:
                if self._accounts is not None and not self._accounts.looking:
                    self._look(self._accounts)

    def _load_succeeded(self, entry: Entry) -> None:
        entry.alone = False
        entry.shrunk = 0
        if self._accounts is not None and (pid := entry.backend.pid) is not None:
            spawn(self._weigh(entry, self._accounts, pid), name=f"weigh {entry.spec.name}")

    def _load_failed(self, entry: Entry, failure: GatewayError) -> None:
        if failure.code == OUT_OF_MEMORY and not entry.alone and self._others_loaded(entry):
            _log.warning("%s: trying again with the other models unloaded", failure.message)
            entry.alone = True
            entry.backend.reset()
            return
        may_shrink = entry.backend.tuning is not None and entry.shrunk < _SHRINKS
        if failure.code == OUT_OF_MEMORY and may_shrink and entry.oldest_wait is not None:
            _log.warning("%s: trying again with less", failure.message)
            entry.shrunk += 1
            entry.backend.reset()
            return
        entry.alone = False
        entry.shrunk = 0
        self._fail(entry, failure)

    def _others_loaded(self, entry: Entry) -> bool:
        every = (*self._entries.values(), *self._leaving.values())
        here = (e for e in every if e is not entry and not e.backend.spec.url)
        return any(e.resident and not e.spec.pinned for e in here)

    # --- memory -------------------------------------------------------------------------------

    def _look_up_needs(self) -> None:
        """Have the memory estimated that the models need which are waited for."""
        if (accounts := self._accounts) is None:
            return
        for entry in self._entries.values():
            wanted = (entry.queue or entry.loaders) and not entry.spec.url
            if not wanted or entry.resident:
                continue
            if entry.looked_up is not entry.spec:
                entry.looked_up = entry.spec
                spawn(self._look_up_need(entry, accounts), name=f"memory of {entry.spec.name}")
            memory = accounts.memory()
            seen = memory.look is Look.FRESH and memory.seen >= (entry.oldest_wait or 0.0)
            if seen and (refusal := accounts.refusal(entry.spec)) is not None:
                entry.backend.refused(refusal)
                self._fail(entry, refusal)

    async def _look_up_need(self, entry: Entry, accounts: Accounts) -> None:
        try:
            await accounts.need_of(entry.spec)
        finally:
            self._pump()

    def _memory(self) -> Memory:
        return self._accounts.memory() if self._accounts is not None else _NOT_WATCHED

    def _look(self, accounts: Accounts) -> asyncio.Task[None]:
        """See what memory is free; what was to be decided by it is decided then."""
        accounts.looking = True
        return spawn(self._look_at_memory(accounts), name="look at the memory")

    async def see_memory(self, *, within: float) -> None:
        """Look at the memory for a report, unless that was done ``within`` so many seconds.

        A look that takes long is not waited for: then the report is of the one before.
        """
        accounts = self._accounts
        if accounts is None or accounts.looking or self._closing:
            return
        if time.monotonic() - accounts.memory().seen > within:
            await asyncio.wait((self._look(accounts),), timeout=_REPORT_WAITS)

    async def _look_at_memory(self, accounts: Accounts) -> None:
        try:
            if await accounts.look(self._residents()):
                for entry in self._entries.values():
                    entry.looked_up = None
            if accounts.capacity is not None:
                self.limits = replace(self.limits, budget=accounts.capacity.budget)
        finally:
            accounts.looking = False
            self._pump()

    def _residents(self) -> list[Resident]:
        every = (*self._entries.values(), *self._leaving.values())
        return [
            Resident(pid, entry.on, settled=entry.backend.state is not State.STARTING)
            for entry in every
            if (pid := entry.backend.pid) is not None
        ]

    def _place(self, entry: Entry, on: Placement) -> None:
        """It is about to start, on these devices."""
        entry.on = on
        entry.grant = entry.backend.tuning = None
        if (accounts := self._accounts) is None:
            return
        entry.backend.devices = accounts.flags(entry.spec, on)
        entry.backend.without_gpu = accounts.without_gpu(entry.spec)
        others = [e for e in self._local() if e is not entry]
        entry.grant = accounts.grant(
            entry.spec,
            on,
            taken_by(e.on for e in others if e.resident),
            shared=any(e.resident or e.last_used for e in others),
            share=_LESS**entry.shrunk,
        )
        if entry.grant is not None:
            entry.on = entry.grant.placement(on)

    async def _choose(self, entry: Entry) -> None:
        """Choose what its entry leaves open, in the memory that it was granted."""
        accounts, grant = self._accounts, entry.grant
        if accounts is None or grant is None:
            return
        try:
            tuning = await accounts.choose(entry.spec, grant)
        except Exception:  # whatever is odd about its file, its start will tell
            _log.exception("what fits of %s cannot be told", entry.spec.name)
            return
        entry.backend.tuning = tuning
        if tuning is not None and tuning.needs is not None:
            entry.on = grant.placement(entry.on, tuning.needs)

    def _local(self) -> list[Entry]:
        """Every model of this machine, those too that are gone from models.json."""
        every = (*self._entries.values(), *self._leaving.values())
        return [entry for entry in every if not entry.spec.url]

    def _note_short(self, short: frozenset[str]) -> None:
        for entry in self._entries.values():
            if entry.key not in short:
                entry.short_since = None
            elif entry.short_since is None:
                entry.short_since = time.monotonic()

    async def _weigh(self, entry: Entry, accounts: Accounts, pid: int) -> None:
        on = await accounts.measure(entry.spec, pid, entry.on, entry.backend.tuning)
        if entry.backend.pid == pid:
            entry.on = on
            if on:
                growing = self._watch_growth(entry, pid)
                entry.growing = spawn(growing, name=f"growth of {entry.spec.name}")
        self._pump()

    async def _watch_growth(self, entry: Entry, pid: int) -> None:
        """Count what the process of a model takes beyond what it took when it was loaded."""
        growth = Growth(pid, entry.on)
        while entry.backend.pid == pid:
            on = await growth.look()
            if entry.backend.pid != pid:
                break
            entry.held = growth.now.size
            if (more := growth.worth_telling(on)) is not None:
                _log.warning(
                    "model %s holds %.1f MiB more than when it was loaded",
                    entry.spec.name,
                    more / 2**20,
                )
            if on != entry.on:
                entry.on = on
                self._pump()
            await asyncio.sleep(self.environment.growth_interval)

    def _size(self, spec: ModelSpec) -> int | None:
        """Bytes ``spec`` needs, ``None`` as long as that isn't known."""
        if spec.url:
            return 0
        if self._accounts is None:
            return spec.memory or 0 if self._memory_known else None
        known = self._accounts.known(spec)
        return known.size if known is not None else None

    def _demand(self, entry: Entry) -> Demand | None:
        size = self._size(entry.spec)
        if size is None:
            return None
        if self._accounts is not None and entry.oldest_wait is not None and not entry.resident:
            return self._accounts.demand(entry.spec)
        given = memory_of(entry) or size
        return Demand(given, given)

    def _ttl(self, entry: Entry) -> float | None:
        return entry.ttl if entry.ttl is not None else self._idle_unload

    def _views(self) -> list[ModelView]:
        entries = (*self._entries.values(), *self._leaving.values())
        return [
            view_of(
                entry,
                self._demand(entry),
                ttl=self._ttl(entry),
                limits=self.limits,
                closing=self._closing,
            )
            for entry in entries
        ]


def _shutting_down() -> Unavailable:
    return Unavailable(
        "the gateway is shutting down", code="shutting_down", headers={"Retry-After": "10"}
    )


def _no_room(entry: Entry) -> Unavailable:
    return Unavailable(
        f"there is no room for {entry.spec.name!r} beside the models that are pinned and loaded",
        code="no_room",
        headers={"Retry-After": "60"},
    )


def _waited_too_long(entry: Entry, timeout: Any) -> Unavailable:
    return Unavailable(
        f"waited {timeout:g} s for {entry.spec.name!r}, which is {entry.backend.state} "
        f"with {entry.in_flight} requests running",
        code="queue_timeout",
        headers={"Retry-After": "30"},
    )
