"""What follows for models from changes of the nodes of a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Protocol

from gateway.backends.logring import LogRing
from gateway.backends.nodes import NodeRun, on_node
from gateway.backends.placed import PlacedBackend
from gateway.backends.replicated import ReplicatedBackend
from gateway.backends.roster import Roster
from gateway.backends.scheduled_model import ScheduledModel
from gateway.errors import GatewayError
from gateway.models.local_model import LocalModel
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
    ) -> None:
        self._roster = roster
        self._undecided = undecided
        self._load = load

    def changed(self) -> None:
        """Decide again: a node has come, gone, or told something."""
        with self._undecided():
            for model in self._roster.models.values():
                model.looked_up = None

    def move_off(self, node: str) -> None:
        """Drain what runs on ``node``; what was loaded there is loaded again, elsewhere."""
        with self._undecided():
            for model in self._roster.models.values():
                if isinstance(model.backend, ReplicatedBackend) and model.backend.resident:
                    spawn(self._move_off(model, model.backend, node), name="move off a node")

    async def _move_off(self, model: ScheduledModel, backend: ReplicatedBackend, node: str) -> None:
        """Move to another node while requests go on here, where there is room; else unload it when
        they have ended, and load it again.
        """
        if await backend.move_off(node) or model.unload:
            return
        with self._undecided():
            if backend.node == node:
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
            backend.granted = on_node(run.node, run.on)
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
