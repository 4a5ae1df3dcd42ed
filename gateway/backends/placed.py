"""The backend of a local model that runs here or on a node of the cluster, as it is placed.

The same state machine as that of :class:`LocalBackend`; only what it runs is elsewhere.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from gateway.backends.backend import State
from gateway.backends.decision import CopyView
from gateway.backends.flights import Flights
from gateway.backends.local import LocalBackend
from gateway.backends.placement import Placement
from gateway.backends.replica import Replica
from gateway.backends.run import End, Run
from gateway.backends.served import Served
from gateway.names import HERE
from gateway.tasks import cancel_and_wait, spawn

if TYPE_CHECKING:
    from gateway.backends.nodes import NodeRun, Terms


class PlacedBackend(LocalBackend):
    """The llama-server of one model, on any machine of the cluster."""

    #: The node of its next start and the terms there; None: it is this machine.
    _place: tuple[str, Terms | None] | None = None
    _found: NodeRun | None = None
    #: What its requests are sent to, from its start on.
    replica: Replica | None = None
    #: What tells it from other copies of its model.
    number = 0
    #: What it was given, as the scheduler calls it.
    granted: Placement = ()

    @property
    def node(self) -> str | None:
        """The node that it runs on, while it runs on one; None: this machine."""
        return self._away.node if self._away is not None else None

    @property
    def where(self) -> str:
        """The name of the machine that it runs on, as entries call it."""
        return self.node or HERE

    @property
    def placed_on(self) -> str:
        """That machine, also before its start."""
        return self.node or (self._place[0] if self._place is not None else HERE)

    @property
    def process_name(self) -> str:
        """A name of its process that other gateways know it by, too, if it is on a node."""
        return self._away.name if self._away is not None else ""

    @property
    def stage(self) -> str | None:
        """What its start is at, where that is not the load itself: files are copied."""
        return self._away.stage if self._away is not None else None

    @property
    def held(self) -> Placement | None:
        """What its run has of nodes' devices, as the scheduler calls them."""
        return self._away.held if self._away is not None else None

    @property
    def spans(self) -> tuple[str, ...]:
        """The nodes that it spans, if those are several."""
        nodes = self._away.nodes if self._away is not None else ()
        return nodes if len(nodes) > 1 else ()

    @property
    def view(self) -> CopyView:
        """It as one of several copies."""
        away, replica = self._away, self.replica
        return CopyView(
            self.number,
            self.granted if away is None else away.held,
            replica.in_flight if replica is not None else 0,
            max(replica.last_used if replica is not None else 0.0, self.used_elsewhere),
            ready=self.state is State.READY,
        )

    @property
    def _away(self) -> NodeRun | None:
        return self._away_of(self._run)

    def _away_of(self, run: Run | None) -> NodeRun | None:
        if self._place is None:
            return None
        return run  # type: ignore[return-value]  # it was made for that place

    def exchange(self, other: PlacedBackend) -> None:
        """Be the process, ready, that ``other`` is, which becomes ours, if that is still there."""
        for one in (self, other):
            if one._watching is not None:
                one._watching.cancel()
        self._run, other._run = other._run, self._run
        self._place, other._place = other._place, self._place
        self.granted, other.granted = other.granted, self.granted
        self.number, other.number = other.number, self.number
        self.replica, other.replica = other.replica, self.replica
        self.flights, other.flights = other.flights, self.flights
        self.slot_looks, other.slot_looks = other.slot_looks, self.slot_looks
        self.log, other.log = other.log, self.log
        self.sleeping, other.sleeping = other.sleeping, self.sleeping
        for one in (self, other):
            one._listen_for_sleep()
            run = one._run
            if run is not None and run.child is not None:
                one._watching = spawn(one._watch(run, run.child), name=f"watch {one.spec.name}")
            if one._away is not None:
                one._bind(one._away)

    def place(self, node: str | None, terms: Terms | None = None) -> None:
        """Run there from the next start on; ``None``: on this machine.

        Without ``terms`` it is found: here, or by the gateway that places models.
        """
        self._place = None if node is None else (node, terms)

    def adopt(self, run: NodeRun) -> None:
        """Take over a llama-server that was found on a node, in place of a start."""
        self.place(run.node)
        self._found = run
        self.start()

    def start(self, prepare: Callable[[], Awaitable[None]] | None = None) -> None:
        """See :meth:`Backend.start`."""
        self.flights = Flights()  # others' are about another process
        # What the entry leaves open is chosen on the node.
        super().start(prepare if self._place is None else None)

    @property
    def _server(self) -> Served:
        return self.replica if self.replica is not None else self

    def _new_run(self) -> Run:
        found = self._found
        run = self._run_for_place()
        away = self._away_of(run)
        replica = Replica(self.spec, run, away, self.flights, inherited=found is not None)
        self.replica, self.slot_looks = replica, replica.slot_looks
        return run

    def _run_for_place(self) -> Run:
        if (found := self._found) is not None:
            self._found = None
            self._bind(found)
            return found
        if self._place is None:
            return super()._new_run()
        node, terms = self._place
        nodes = self._env.nodes
        assert nodes is not None
        if terms is None:
            run = nodes.sought(self.spec, self.log)
        else:
            run = nodes.run(self.spec, node, self.log, terms)
        self._bind(run)
        return run

    def _bind(self, run: NodeRun) -> None:
        """Hear of what happens to ``run``."""
        self.going = False
        run.changed = partial(self._changed, self)
        run.used, run.stopping = self._used, self._stopping_there

    def _used(self) -> None:
        if self._env.nodes is not None and self._env.nodes.shared:
            self.used_elsewhere = time.monotonic()

    def _stopping_there(self) -> None:
        self.going = True
        self._changed(self)

    def _look_for_sleep(self) -> None:
        super()._look_for_sleep()
        if self.replica is not None:
            self.replica.sleeping = self.sleeping

    async def _goes_on(self, run: Run, end: End) -> bool:
        if self.replica is not None:
            self.replica.end(end)
        return False

    async def _clean_up(self) -> None:
        await super()._clean_up()
        self._over()

    def _over(self) -> None:
        if self.replica is not None:
            self.replica.end()
            self.replica = None

    def leave(self) -> asyncio.Future[None]:
        """End it if it is here; one on a node goes on, to be found by the next gateway."""
        run = self._away
        if run is None or self.state is not State.READY:
            return self.stop()
        return asyncio.shield(spawn(self._let_go(run), name=f"let go of {self.spec.name}"))

    async def _let_go(self, run: NodeRun) -> None:
        await cancel_and_wait(self._watching)
        await self._save_slots()
        await run.let_go()
        self._run = None
        self._over()
        self._enter(State.STOPPED)
