"""The memory of models on this machine: their needs and grants, kept up to date.

The needs of a model are looked up when a request waits for it, and free memory is measured. A model
that starts is granted its share; a loaded model is measured, once and then again and again. Until
:meth:`watch` nothing of that is known.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.backends.backend import Backend
from gateway.backends.decision import NOTHING
from gateway.backends.growth import Growth
from gateway.backends.nodes import Nodes, Terms, node_of, of_node
from gateway.backends.placed import PlacedBackend
from gateway.backends.placement import (
    HERE,
    Demand,
    Look,
    Memory,
    Placement,
    Resident,
    by_machine,
    taken_by,
)
from gateway.backends.ran_out import RanOut
from gateway.backends.replicated import ReplicatedBackend
from gateway.backends.roster import Roster
from gateway.backends.scheduled_model import ScheduledModel, memory_of
from gateway.backends.wait_queue import WaitQueue
from gateway.errors import GatewayError, Unavailable
from gateway.models.local_model import LocalModel
from gateway.models.model import Model
from gateway.tasks import spawn, spawn_lasting

if TYPE_CHECKING:
    from gateway.backends.accounts import Accounts
    from gateway.backends.tuning import Grant, Tuning

_log = logging.getLogger(__name__)

_NOT_WATCHED = Memory()
#: The share of its grant with which a model is tried again, when memory ran out though it was given
#: no more than there was.
_LESS = 0.7
#: Seconds that a report waits for a measurement of memory.
REPORT_WAITS = 2.0


class ModelMemory:
    """The memory of one scheduler's models.

    ``known=False``: until :meth:`watch`, the needs of all models are unknown. ``interval``: seconds
    between two looks at what a loaded model holds. ``decide`` is called when something has turned
    out on which a decision depends, ``budget`` with the bytes that all models may take together.
    """

    def __init__(
        self,
        roster: Roster,
        queue: WaitQueue,
        *,
        known: bool,
        interval: float,
        decide: Callable[[], None],
        budget: Callable[[int], None],
        nodes: Nodes | None = None,
    ) -> None:
        self._roster = roster
        self._queue = queue
        self._known = known
        self._interval = interval
        self._decide = decide
        self._budget = budget
        self._nodes = nodes
        self.accounts: Accounts | None = None
        self._ran_out = RanOut()

    @property
    def places(self) -> bool:
        """Whether this gateway decides where its models run."""
        return self._nodes is None or self._nodes.places

    def watch(self, accounts: Accounts) -> None:
        """Use ``accounts`` from now on for the needs of models and the capacity of the machine."""
        self.accounts = accounts

    # --- for decisions and reports -------------------------------------------------------------

    def now(self) -> Memory:
        """Return the memory for a decision that is made now."""
        memory = self.accounts.memory() if self.accounts is not None else _NOT_WATCHED
        return memory if self._nodes is None else replace(memory, nodes=self._nodes.memory())

    def size(self, spec: Model) -> int | None:
        """Return bytes ``spec`` needs, ``None`` as long as that isn't known."""
        if not isinstance(spec, LocalModel):
            return 0
        if self.accounts is None:
            return spec.memory or 0 if self._known else None
        known = self.accounts.known(spec)
        return known.size if known is not None else None

    def demand(self, model: ScheduledModel) -> Demand | None:
        """Return what ``model`` needs or has, ``None`` as long as that isn't known."""
        if not self.places:
            return NOTHING
        size = self.size(model.spec)
        if size is None:
            return None
        accounts, spec, waits = self.accounts, model.spec, model.oldest_wait is not None
        if accounts is not None and waits and not model.resident and isinstance(spec, LocalModel):
            demand, nodes = accounts.demand(spec), self._nodes
            if nodes is None:
                return demand
            if not nodes.knows(spec):
                return None
            demand = self._ran_out.raised(spec, nodes.demand(spec, demand))
            if demand.elsewhere and accounts.refusal(spec) is not None:
                demand = replace(demand, here=False)  # it must have a GPU, and nodes have one
            return demand
        given = memory_of(model) or size
        if model.backend.copies > 1:
            given = sum(size for _, size in model.on)
        return Demand(given, given)

    def copy_demand(self, model: ScheduledModel) -> Demand | None:
        """Return what one more copy of ``model`` needs, if there should be one, and that is
        known.
        """
        accounts, nodes, spec = self.accounts, self._nodes, model.spec
        if not self._misses_copies(model) or accounts is None or nodes is None:
            return None
        if not isinstance(spec, LocalModel) or not nodes.knows(spec):
            return None
        demand = self._ran_out.raised(spec, nodes.demand(spec, accounts.demand(spec)))
        # No look at this machine is worth it: nobody waits.
        return replace(demand, here=demand.here and accounts.memory().look is Look.FRESH)

    def _misses_copies(self, model: ScheduledModel) -> bool:
        backend = model.backend
        if not isinstance(backend, ReplicatedBackend) or not self.places:
            return False
        return backend.wants_copies(busy=bool(model.queue))

    # --- what is needed ------------------------------------------------------------------------

    def look_up_needs(self) -> None:
        """Estimate, in the background, the needs of models for which requests wait."""
        if (accounts := self.accounts) is None or not self.places:
            return
        for model in self._roster.models.values():
            spec, wanted = model.spec, model.queue or model.loaders
            missing = self._misses_copies(model)
            if not (missing or (wanted and not model.resident)):
                continue
            if not isinstance(spec, LocalModel):
                continue
            unknown = self._nodes is not None and not self._nodes.knows(spec)
            if model.looked_up is not spec or (unknown and not model.looking_up):
                model.looked_up, model.looking_up = spec, True
                spawn(self._look_up(model, spec, accounts), name=f"memory of {spec.name}")
            memory = accounts.memory()
            seen = memory.look is Look.FRESH and memory.seen >= (model.oldest_wait or 0.0)
            if missing or (self._nodes is not None and self._nodes.takes(spec)):
                continue
            if seen and (refusal := accounts.refusal(spec)) is not None:
                model.backend.refused(refusal)
                self._queue.refuse(model, refusal)

    async def _look_up(self, model: ScheduledModel, spec: LocalModel, accounts: Accounts) -> None:
        try:
            await accounts.need_of(spec)
            if self._nodes is not None:
                await self._nodes.look_up(spec)
        finally:
            model.looking_up = False
            self._decide()

    def note_short(self, short: frozenset[str]) -> None:
        """Note which models, by key, wait for memory that other programs hold."""
        for model in self._roster.models.values():
            if model.key not in short:
                model.short_since = None
            elif model.short_since is None:
                model.short_since = time.monotonic()

    # --- what is free --------------------------------------------------------------------------

    def begin_look(self) -> asyncio.Task[None] | None:
        """Begin to measure free memory, unless that is under way. Decisions that depend on it
        follow.
        """
        accounts = self.accounts
        if accounts is None or accounts.looking:
            return None
        accounts.looking = True
        return spawn(self._see(accounts), name="look at the memory")

    async def see(self, *, within: float) -> None:
        """Look for a report, unless that was done ``within`` so many seconds.

        A look that takes long is not waited for: then the report is of the one before.
        """
        if time.monotonic() - self.now().seen <= within:
            return
        if (look := self.begin_look()) is not None:
            await asyncio.wait((look,), timeout=REPORT_WAITS)

    async def _see(self, accounts: Accounts) -> None:
        try:
            if await accounts.look(self._residents()):
                for model in self._roster.models.values():
                    model.looked_up = None
            if accounts.capacity is not None:
                self._budget(accounts.capacity.budget)
        finally:
            accounts.looking = False
            self._decide()

    def _residents(self) -> list[Resident]:
        return [
            Resident(pid, by_machine(on).get(HERE, ()), settled=not model.loading)
            for model in self._roster.all()
            for pid, on in model.backend.processes(model.on)
        ]

    # --- what a start is given -----------------------------------------------------------------

    def grant(self, model: ScheduledModel, on: Placement) -> None:
        """Grant ``model``, which is about to start, its memory on these devices."""
        model.grant = model.backend.tuning = None
        model.grant = self._grant(model, model.backend, on, ())
        model.on = on if model.grant is None else model.grant.placement(on)
        if isinstance(model.backend, PlacedBackend):
            model.backend.granted = model.on

    def copy(self, model: ScheduledModel, on: Placement) -> None:
        """Start one more copy of ``model`` on these devices."""
        backend = model.backend
        assert isinstance(backend, ReplicatedBackend)
        member = backend.new_member()
        grant = self._grant(model, member, on, model.on)
        member.granted = on if grant is None else grant.placement(on)
        model.on = (*model.on, *member.granted)

        async def choose() -> None:
            await self._choose(member, grant)

        member.start(choose)

    def _grant(
        self, model: ScheduledModel, backend: Backend, on: Placement, own: Placement
    ) -> Grant | None:
        """Return what ``backend``, of ``model``, is granted here; say to it where it runs.

        ``own``: what other copies of the model have.
        """
        accounts, spec = self.accounts, model.spec
        others = [other for other in self._roster.local() if other is not model]
        taken = taken_by([*(other.on for other in others if other.resident), own])
        shared = any(other.resident or other.last_used for other in others)
        share = _LESS**model.shrunk
        if isinstance(backend, PlacedBackend):
            if not self.places:
                backend.place("")  # wherever the gateway that places models has it
                return None
            node = node_of(on)
            backend.place(node)
            if node is not None:
                there = dict(of_node(node, tuple(taken.items())))
                helpers = {name: of_node(name, part) for name, part in by_machine(on).items()}
                own = helpers.pop(node)
                backend.place(node, Terms(own, there, shared, share, helpers))
                return None
        if accounts is None or not isinstance(spec, LocalModel):
            return None
        backend.devices = accounts.flags(spec, on)
        backend.without_gpu = accounts.without_gpu(spec)
        return accounts.grant(spec, on, taken, shared=shared, share=share)

    async def choose(self, model: ScheduledModel) -> None:
        """Choose what its entry leaves open, in the memory that it was granted."""
        grant = model.grant
        tuning = await self._choose(model.backend, grant)
        if grant is not None and tuning is not None and tuning.needs is not None:
            model.on = grant.placement(model.on, tuning.needs)

    async def _choose(self, backend: Backend, grant: Grant | None) -> Tuning | None:
        accounts, spec = self.accounts, backend.spec
        if accounts is None or grant is None or not isinstance(spec, LocalModel):
            return None
        try:
            tuning = await accounts.choose(spec, grant)
        except Exception:  # its start will report what is wrong with its file
            _log.exception("what fits of %s cannot be told", spec.name)
            return None
        backend.tuning = tuning
        return tuning

    def try_elsewhere(self, model: ScheduledModel) -> bool:
        """Note that ``model`` ran out of memory where it was; return whether it is to be tried on
        another machine, where it may run and hasn't been tried.
        """
        spec, nodes, accounts = model.spec, self._nodes, self.accounts
        if nodes is None or accounts is None or not isinstance(spec, LocalModel):
            return False
        there = {name for name in by_machine(model.on) if model.on}
        demand = nodes.demand(spec, accounts.demand(spec))
        may = {name for name in nodes.memory() if name in demand.elsewhere}
        may |= {HERE} if demand.here else set()
        if not may - there - self._ran_out.on(spec).keys():
            return False
        return self._ran_out.note(spec, there)

    def forget_ran_out(self, model: ScheduledModel, *, everywhere: bool = False) -> None:
        """Try ``model`` again where memory ran out: it has been loaded there, or anywhere."""
        if isinstance(model.spec, LocalModel):
            self._ran_out.forget(model.spec, None if everywhere else by_machine(model.on))

    def hear(self, model: ScheduledModel) -> None:
        """Count what the node of a model says that it takes there, and where a copy couldn't."""
        if isinstance(model.backend, ReplicatedBackend):
            for on in model.backend.take_ran_out():
                self._ran_out.note(model.backend.spec, by_machine(on))
        if isinstance(model.backend, PlacedBackend) and (held := model.backend.held) is not None:
            model.on = held
            model.held = sum(size for _, size in held)

    def lacking(self, spec: LocalModel) -> GatewayError:
        """Return the error for ``spec`` where there was no place for it for too long."""
        accounts, nodes = self.accounts, self._nodes
        assert accounts is not None
        if nodes is None:
            return accounts.lacking(spec)
        alone = nodes.alone(spec)
        if nodes.demand(spec, accounts.demand(spec)).here:
            error = accounts.lacking(spec)
            if alone is None:
                return error
            return Unavailable(error.public, detail=alone, code=error.code, headers=error.headers)
        why = nodes.problem(spec) or alone or "other programs, or pinned models, hold their memory"
        if tried := self._ran_out.on(spec):
            why += f"; it ran out of memory on {', '.join(sorted(tried))}"
        return Unavailable(
            f"no node has a place for {spec.name!r}.",
            detail=f"{why[0].upper()}{why[1:]}.",
            code="no_node",
            headers={"Retry-After": "10"},
        )

    def alone(self, spec: Model) -> str | None:
        """Return why ``spec``, which may span machines, doesn't; None: it may not, or does."""
        if self._nodes is None or not isinstance(spec, LocalModel):
            return None
        return self._nodes.alone(spec)

    # --- what it takes -------------------------------------------------------------------------

    def weigh(self, model: ScheduledModel) -> None:
        """Measure what a loaded model has taken, and watch its growth."""
        if self.accounts is not None and (pid := model.backend.pid) is not None:
            spawn(self._weigh(model, self.accounts, pid), name=f"weigh {model.spec.name}")

    async def _weigh(self, model: ScheduledModel, accounts: Accounts, pid: int) -> None:
        on, spec = model.on, model.spec
        if isinstance(spec, LocalModel):
            on = await accounts.measure(spec, pid, on, model.backend.tuning)
        if model.backend.pid == pid:
            model.on = on
            if on:
                model.growing = spawn_lasting(
                    lambda: self._watch_growth(model, pid), name=f"growth of {model.spec.name}"
                )
        self._decide()

    async def _watch_growth(self, model: ScheduledModel, pid: int) -> None:
        """Count what the process of a model takes beyond what it took when it was loaded."""
        growth = Growth(pid, model.on)
        while model.backend.pid == pid:
            on = await growth.look()
            if model.backend.pid != pid:
                break
            model.held = growth.now.size
            if (more := growth.worth_telling(on)) is not None:
                _log.warning(
                    "model %s holds %.1f MiB more than when it was loaded",
                    model.spec.name,
                    more / 2**20,
                )
            if on != model.on:
                model.on = on
                self._decide()
            await asyncio.sleep(self._interval)
