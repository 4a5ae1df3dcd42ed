"""The scheduler: the only owner of decisions about which request is served and which model is
loaded.

A request asks for a :class:`Lease` and waits. What happens meanwhile is decided by
:mod:`gateway.backends.policy` from a view of all models, whenever anything changes, and carried
out by :mod:`gateway.backends.executor`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gateway.backends.backend import Backend, Environment, State
from gateway.backends.decision import Act, Action, Decision, ModelView, SchedulingLimits
from gateway.backends.executor import Executor
from gateway.backends.lease import Lease, Leases
from gateway.backends.model_memory import ModelMemory
from gateway.backends.model_status import ModelStatus, QueuePosition, status_of
from gateway.backends.node_changes import NodeChanges
from gateway.backends.policy import decide
from gateway.backends.roster import Roster
from gateway.backends.scheduled_model import ScheduledModel, view_of
from gateway.backends.suspects import Suspects
from gateway.backends.wait_queue import WaitQueue, place_in
from gateway.errors import GatewayError, ModelNotFound, ShuttingDown, Unavailable
from gateway.models.catalog import Catalog
from gateway.tasks import cancel_and_wait

if TYPE_CHECKING:
    from gateway.backends.accounts import Accounts

_log = logging.getLogger(__name__)

#: What changes something at once.
_ENDS = (Act.STOP, Act.STOP_COPY)


class Scheduler:
    """A scheduler that gives leases for models of the catalog, and starts and stops their
    backends.
    """

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
        #: The limits on loaded models, and how long a newcomer waits. May be replaced.
        self.limits = limits
        self._queue_timeout = queue_timeout
        self._idle_unload = idle_unload
        #: The requests that models may have died of.
        self.suspects = Suspects()
        #: Called with a model's name and the reason when its process, once ready, has died.
        self.died: Callable[[str, GatewayError], None] = lambda model, error: None
        self._listeners: set[Callable[[], None]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._deciding = False
        self._again = False
        self._closing = False
        self._queue = WaitQueue(queue_size, self._decide)
        self._leases = Leases(self._decide, self._released, self._notify)
        self._roster = Roster(
            catalog, environment, changed=self._changed, refuse=self._queue.refuse
        )
        # For each request: an attribute less to look up.
        self._models, self._grant = self._roster.models, self._leases.grant
        self._memory = ModelMemory(
            self._roster,
            self._queue,
            known=memory_known,
            interval=environment.growth_interval,
            decide=self._decide,
            budget=self._set_budget,
            nodes=environment.nodes,
        )
        self._executor = Executor(
            self._roster,
            self._queue,
            self._leases,
            self._memory,
            lambda model, error: self.died(model, error),
            environment.counts,
            lambda model: self.nodes.load_again(model),
        )
        #: What follows from changes of the nodes of a cluster.
        self.nodes = NodeChanges(self._roster, self._undecided, self.load, environment.nodes)

    def watch_memory(self, accounts: Accounts, limits: SchedulingLimits) -> None:
        """Decide by memory from now on: what models need, and how much there is."""
        self._memory.watch(accounts)
        self.limits = limits
        self._decide()

    # --- asking for work ---------------------------------------------------------------------

    def try_lease(self, model: str) -> Lease | None:
        """Return a lease at once if the model is ready, has a free slot and nobody waits for it."""
        found = self._models.get(model)
        if (
            found is None
            or found.queue
            or not found.backend.serving
            or found.in_flight - found.lent >= found.slots
            or self._closing
        ):
            return None
        if not found.in_flight:
            found.asked(time.monotonic())
        return self._grant(found)

    async def lease(self, model: str) -> Lease:
        """Wait for a slot of ``model``, loading it if needed.

        Raises :class:`ModelNotFound`; :class:`Unavailable` (with ``Retry-After``) when the
        queue is full, the wait is over ``queue_timeout`` or the gateway is stopping;
        :class:`LoadFailed` when the model does not come up. A cancelled waiter leaves the queue.
        """
        if (lease := self.try_lease(model)) is not None:
            return lease
        found = self._find(model)
        self._queue.check(found)
        return await self._queue.lease(found, self._queue_timeout)

    async def load(self, model: str, *, explicit: bool = True) -> None:
        """Load ``model``, and return when it is ready.

        ``explicit``: an administrator's wish, so its earlier failures are forgotten, and it is
        waited for as long as it takes. Otherwise on the terms of :meth:`lease`.
        """
        found = self._find(model)
        if explicit:
            found.backend.reset()
            self._memory.forget_ran_out(found, everywhere=True)
        if found.backend.serving:
            await found.backend.ensure_ready()  # it is, unless all remote servers are down
            found.was_loaded(explicit=explicit)
            return
        if not explicit:
            self._queue.check(found)
        timeout = None if explicit else self._queue_timeout
        await self._queue.loaded(found, timeout, explicit=explicit)

    async def unload(self, model: str) -> None:
        """Drain ``model`` and return when its process is gone.

        Requests that wait for its load, or for the load to begin, are refused.
        """
        found = self._find(model)
        if found.loading or not found.resident:
            unloaded = Unavailable(f"{model!r} was unloaded while it was loading")
            self._queue.refuse(found, unloaded)
        if not found.resident:
            self._decide()
            return
        changed = asyncio.Event()
        stop_listening = self.subscribe(changed.set)
        found.send_away()
        self._decide()
        try:
            while found.unload:
                changed.clear()
                await changed.wait()
        finally:
            stop_listening()

    def keep(self, model: str, seconds: float, *, admin: bool) -> None:
        """Unload ``model`` when it has been idle for so many ``seconds`` (``inf``: never), until
        its next use: see :meth:`ScheduledModel.keep`.
        """
        if (found := self._models.get(model)) is not None:
            found.keep(seconds, self._idle_unload, admin=admin)
            self._decide()

    def ttl(self, model: str) -> float | None:
        """Return the seconds after which ``model`` is unloaded if it is idle; None: it stays."""
        found = self._models.get(model)
        return found.ttl(self._idle_unload) if found is not None else None

    def apply(self, catalog: Catalog) -> None:
        """Take over a changed models.json: see :meth:`Roster.apply`."""
        with self._undecided():
            self._roster.apply(catalog)
            self.nodes.follow_entries(edited=True)

    def _find(self, model: str) -> ScheduledModel:
        if self._closing:
            raise ShuttingDown()
        found = self._models.get(model)
        if found is None:
            raise ModelNotFound(f"there is no model {model!r} in models.json")
        return found

    # --- looking ------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """The number of leases that are held."""
        return self._leases.in_flight

    @property
    def machine_problem(self) -> str | None:
        """What is wrong with this machine, such as a GPU that is gone."""
        accounts = self.accounts
        capacity = accounts.capacity if accounts is not None else None
        return capacity.problem if capacity is not None else None

    @property
    def accounts(self) -> Accounts | None:
        """The accounts of memory; ``None`` until :meth:`watch_memory`."""
        return self._memory.accounts

    async def see_memory(self, *, within: float) -> None:
        """Look at the memory for a report, unless that was done ``within`` so many seconds."""
        if not self._closing:
            await self._memory.see(within=within)

    def backend(self, model: str) -> Backend | None:
        """Return the backend of a model, whatever its state."""
        found = self._models.get(model)
        return found.backend if found else None

    def waiting(self, model: str, task: asyncio.Task[Any]) -> QueuePosition:
        """Return where the request of ``task`` stands, which awaits :meth:`lease`."""
        found = self._models.get(model)
        if found is None:
            return QueuePosition(State.STOPPED, 1)
        return QueuePosition(found.backend.state, place_in(found, task) or 1)

    def place(self, model: str, task: asyncio.Task[Any]) -> int | None:
        """Return where the request of ``task`` stands in the queue of its model; 1 is next."""
        found = self._models.get(model)
        return place_in(found, task) if found is not None else None

    def loaded(self) -> list[str]:
        """Return names of the models that are loaded, but for those that make room for another."""
        return [
            name
            for name, model in self._models.items()
            if model.backend.state is State.READY
            or (model.backend.state is State.DRAINING and model.unload)
        ]

    def status(self) -> list[ModelStatus]:
        """Return every model, in the order of models.json."""
        now = time.monotonic()
        return [
            status_of(model, now, self._memory.size(model.spec), model.ttl(self._idle_unload))
            for model in self._models.values()
        ]

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` after every change of a state or a queue; returns how to end it."""
        self._listeners.add(callback)
        return lambda: self._listeners.discard(callback)

    def is_alive(self) -> bool:
        """Return whether decisions are made: one is, now, which also makes up for one that was
        missed. If that fails, requests would wait in vain.
        """
        if self._deciding:  # by what never came to its end
            _log.error("the scheduler is stuck in a decision")
            return False
        try:
            self._decide()
        except Exception:
            _log.exception("the scheduler cannot decide")
            return False
        return True

    # --- the end ------------------------------------------------------------------------------

    def refuse_new(self) -> None:
        """Let no new request in, refuse the waiting ones, and let running ones finish."""
        self._closing = True
        for model in self._models.values():
            self._queue.refuse(model, ShuttingDown())

    async def idle(self) -> None:
        """Return when nothing is in flight."""
        await self._leases.idle()

    async def close(self) -> None:
        """Stop every backend, all at the same time, and return when they are gone."""
        self.refuse_new()
        if self._alarm is not None:
            self._alarm.cancel()
        models = self._roster.all()
        growing = [model.growing for model in models]
        await asyncio.gather(*(model.backend.leave() for model in models))
        await cancel_and_wait(*growing)

    # --- when to decide -------------------------------------------------------------------------

    def _changed(self, backend: Backend) -> None:
        with self._undecided():
            self._executor.hear(backend)
            if backend.state is State.READY:
                self.nodes.follow_entries()

    @contextlib.contextmanager
    def _undecided(self) -> Iterator[None]:
        """Decide afterwards, once, and nothing on half of what is done meanwhile."""
        outermost, self._deciding = not self._deciding, True
        try:
            yield
        finally:
            self._deciding = not outermost
            self._decide()

    def _decide(self) -> None:
        """Decide and act until there is nothing more to do now."""
        if self._deciding:
            self._again = True
            return
        self._deciding = True
        try:
            decision = self._act()
        finally:
            self._deciding = False
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if decision.wake_at is not None and not self._closing:
            delay = max(0.0, decision.wake_at - time.monotonic()) + 0.001
            self._alarm = asyncio.get_running_loop().call_later(delay, self._decide)
        self._notify()

    def _act(self) -> Decision:
        before: tuple[Action, ...] = ()
        while True:
            self._again = False
            self._memory.look_up_needs()
            now, memory = time.monotonic(), self._memory.now()
            decision = decide(self._views(), self.limits, now, memory)
            self._memory.note_short(decision.short)
            if decision.actions == before and any(one.act in _ENDS for one in before):
                _log.error("what was decided changes nothing: %s", before)  # and never would
                return decision
            before = decision.actions
            for action in decision.actions:
                self._executor.carry_out(action)
            if not decision.actions and not self._again:
                return decision

    def _views(self) -> list[ModelView]:
        return [
            view_of(
                model,
                self._memory.demand(model),
                ttl=model.ttl(self._idle_unload),
                limits=self.limits,
                closing=self._closing,
                copy=self._memory.copy_demand(model),
                places=self._memory.places,
            )
            for model in self._roster.all()
        ]

    def _notify(self) -> None:
        if self._listeners:
            for listener in tuple(self._listeners):
                listener()

    def _released(self, model: ScheduledModel, now: float) -> None:
        if waiting := self._queue.waiting:
            self._roster.note_rivals(model, now, self.limits.late)
        expires = not model.in_flight and model.ttl(self._idle_unload) is not None
        if waiting or model.unload or expires:
            self._decide()

    def _set_budget(self, budget: int) -> None:
        self.limits = replace(self.limits, budget=budget)
