"""What follows for models from changes of the nodes of a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Protocol

from gateway.backends.backend import State
from gateway.backends.logring import LogRing
from gateway.backends.nodes import NodeRun, Nodes
from gateway.backends.placed import PlacedBackend
from gateway.backends.replicated import ReplicatedBackend
from gateway.backends.roster import Roster
from gateway.backends.scheduled_model import ScheduledModel
from gateway.errors import GatewayError
from gateway.models.local_model import LocalModel
from gateway.names import HERE
from gateway.tasks import spawn


class Load(Protocol):
    """See :meth:`gateway.backends.scheduler.Scheduler.load`."""

    def __call__(self, model: str, *, explicit: bool) -> Awaitable[None]: ...


class NodeChanges:
    """The changes for the models of ``roster``; ``undecided``: decide afterwards, once."""

    def __init__(
        self,
        roster: Roster,
        undecided: Callable[[], AbstractContextManager[None]],
        load: Load,
        nodes: Nodes | None,
    ) -> None:
        self._roster = roster
        self._undecided = undecided
        self._load = load
        self._nodes = nodes
        self._moving: set[tuple[str, str]] = set()  # models, off which machine

    def changed(self) -> None:
        """Decide again: a node has come, gone, or told something."""
        with self._undecided():
            for model in self._roster.models.values():
                model.looked_up = None
            self.follow_entries()

    def follow_entries(self, *, edited: bool = False) -> None:
        """See to it that each model runs where its entry says, and no more often, and that it
        leaves drained nodes: it may have been found there by a gateway that was restarted.

        ``edited``: entries have just changed, so that what loads may be in the wrong place, too.
        """
        nodes = self._nodes
        if nodes is None or not nodes.places:
            return
        for model in self._roster.models.values():
            backend, spec = model.backend, model.spec
            if not isinstance(backend, ReplicatedBackend) or not isinstance(spec, LocalModel):
                continue
            loads = edited and backend.state is State.STARTING
            if model.unload or not (loads or backend.state is State.READY):
                continue
            backend.trim()
            for place in {*(node or HERE for node in backend.nodes), *backend.spans}:
                if place in nodes.drained or (spec.nodes and place not in spec.nodes):
                    self._begin_to_move_off(model, backend, place)

    def move_off(self, node: str) -> None:
        """Drain what runs on ``node``; what was loaded there is loaded again, elsewhere."""
        with self._undecided():
            for model in self._roster.models.values():
                if isinstance(model.backend, ReplicatedBackend) and model.backend.resident:
                    self._begin_to_move_off(model, model.backend, node)

    def _begin_to_move_off(
        self, model: ScheduledModel, backend: ReplicatedBackend, node: str
    ) -> None:
        if (model.key, node) not in self._moving:
            self._moving.add((model.key, node))
            spawn(self._move_off(model, backend, node), name=f"move off {node}")

    async def _move_off(self, model: ScheduledModel, backend: ReplicatedBackend, node: str) -> None:
        """Move to another node while requests go on here, where there is room; else unload it when
        they have ended, and load it again.
        """
        moving = (model.key, node)
        try:
            if await backend.move_off(node) or model.unload:
                return
        finally:
            self._moving.discard(moving)
        with self._undecided():
            if backend.where == node or node in backend.spans:
                model.send_away()
                self.load_again(model.spec.name)

    def adopt(self, spec: LocalModel, adopt: Callable[[LogRing], NodeRun]) -> bool:
        """Take over a llama-server for ``spec`` that an earlier gateway has left on a node.

        Returns whether it is wanted. ``adopt`` makes a run of it.
        """
        found = self._roster.models.get(spec.name)
        if found is None or not isinstance(found.backend, ReplicatedBackend):
            return False
        if found.spec.process_identity() != spec.process_identity():
            return False
        backend: PlacedBackend | None = found.backend
        if found.resident:
            backend = found.backend.adopt_copy()
            if backend is None:
                return False
        assert backend is not None
        with self._undecided():
            run = adopt(backend.log)
            backend.granted = run.held
            found.on = (
                (*found.on, *backend.granted) if backend is not found.backend else backend.granted
            )
            backend.adopt(run)
        return True

    async def load_wanted(self, model: str) -> None:
        """Load a model that another gateway wants. Raises GatewayError."""
        await self._load(model, explicit=False)

    def load_again(self, model: str) -> None:
        """Load a model whose place is gone."""
        spawn(self._load_again(model), name=f"load {model} again")

    async def _load_again(self, model: str) -> None:
        with contextlib.suppress(GatewayError):  # it is in the log, and in its status
            await self._load(model, explicit=False)
