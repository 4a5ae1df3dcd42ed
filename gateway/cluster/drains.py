"""Which nodes take no more models, and how one is removed.

Gateways of a group agree on it through the registry; each keeps it in a file, too, from which a
registry that was started anew hears of it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.backends.nodes import UnknownNode
from gateway.cluster.link import Link, Unreachable
from gateway.cluster.told import NODE, REGISTRY, NodeState
from gateway.errors import Conflict, GatewayError
from gateway.private_files import write_private
from gateway.tasks import cancel_and_wait, spawn

if TYPE_CHECKING:
    from gateway.cluster.known_node import KnownNode
    from gateway.cluster.run import ClusterRun

_FILE: Final = "drained.json"
#: Seconds for a node to tell its machine that it was removed.
_DISMISS: Final = 5.0


class Drains:
    """The drained ones of ``nodes``. ``boots``: the last life of each that was heard of.

    ``changed`` is called after a change, with the nodes that are to be left from now on;
    ``forget`` with one that has been removed.
    """

    def __init__(
        self,
        nodes: Mapping[str, KnownNode],
        boots: Mapping[str, str],
        link: Link,
        folder: Path,
        *,
        changed: Callable[[Iterable[str]], None],
        forget: Callable[[str], None],
    ) -> None:
        self._nodes = nodes
        self._boots = boots
        self._link = link
        self._file = folder / _FILE
        self._changed = changed
        self._forget = forget
        self._removals: dict[str, asyncio.Task[GatewayError | None]] = {}
        self._news = asyncio.Event()  # set, and replaced, at every change
        #: Who this gateway is, and whether others are the same.
        self.gateway, self.shared = "", False
        self.names: frozenset[str] = frozenset()

    def load(self) -> None:
        """Read which are. Blocks."""
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
            self.names = frozenset(json.loads(self._file.read_bytes()))

    async def close(self) -> None:
        """Give up removals that are under way: their nodes stay drained."""
        await cancel_and_wait(*self._removals.values())

    async def set(self, name: str, drained: bool) -> None:
        """Let a node take models, or no more. Raises :class:`UnknownNode`, and
        :class:`Unreachable` where other gateways can't be told.
        """
        self._find(name)
        if self.shared:
            await self._link.call(REGISTRY, "drained_before", self.gateway, self.names)
            await self._link.call(REGISTRY, "drain", self.gateway, name, drained)
        await self.take(self.names | {name} if drained else self.names - {name}, left={name})

    async def hear(self, told: frozenset[str] | None) -> None:
        """Take what the registry says of the group: ``None``, it knows nothing of it yet."""
        if not self.shared or told == self.names:
            return
        if told is None:
            await self._link.call(REGISTRY, "drained_before", self.gateway, self.names)
        else:
            await self.take(told)

    async def take(self, names: frozenset[str], left: Iterable[str] = ()) -> None:
        """Have these drained from now on. ``left``: those to be left even if they were before."""
        before, self.names = self.names, names
        for node in self._nodes.values():
            node.drained = node.name in names
        news, self._news = self._news, asyncio.Event()
        news.set()
        if names != before:
            await asyncio.to_thread(write_private, self._file, json.dumps(sorted(names)))
        self._changed((names - before) | (names & frozenset(left)))

    # --- removal -------------------------------------------------------------------------------

    async def remove(self, name: str) -> None:
        """Drain a node, and forget it when nothing of ours runs there; it may join again.

        Raises :class:`UnknownNode`, :class:`Unreachable` while the head is away, and
        :class:`Conflict` where it is resumed meanwhile, or another gateway uses it.
        """
        removal = self._removals.get(name)
        if removal is None:  # a second request waits for the same
            removal = spawn(self._removed(self._find(name)), name=f"remove the node {name}")
            self._removals[name] = removal
            removal.add_done_callback(lambda _: self._removals.pop(name, None))
        if (failure := await asyncio.shield(removal)) is not None:
            raise failure

    async def _removed(self, node: KnownNode) -> GatewayError | None:
        try:
            await self._link.call(REGISTRY, "nodes", -1)  # it is to be told later
            await self._refuse_where_used(node)
            await self.set(node.name, True)
            await self._left(node)
            await self._refuse_where_used(node)
            await self._link.call(REGISTRY, "leave", node.name, self._boots.get(node.name, ""))
        except Unreachable as error:
            return Unreachable(
                f"the node {node.name!r} cannot be forgotten while the head of the cluster gives "
                f"no answer ({error.message}): remove it when the head is back"
            )
        except GatewayError as error:
            return error
        self._forget(node.name)
        if node.name in self.names:
            with contextlib.suppress(Unreachable):
                if self.shared:
                    await self._link.call(REGISTRY, "drain", self.gateway, node.name, False)
            await self.take(self.names - {node.name})
        await self._dismiss(node)
        return None

    async def _dismiss(self, node: KnownNode) -> None:
        """Have `node join` end there, and nothing of the node stay in Ray.

        What can't be reached now hears of it as soon as it announces itself.
        """
        name = NODE + node.name
        with contextlib.suppress(GatewayError):
            if node.up:
                await self._link.call(name, "dismiss", within=_DISMISS)
        with contextlib.suppress(GatewayError):
            await self._link.kill(name)

    async def _left(self, node: KnownNode) -> None:
        """Return when all that we run on a node is over. Raises :class:`Conflict`."""
        seen: set[ClusterRun] = set()
        resumed = spawn(self._resumed(node), name=f"resume of {node.name}")
        try:
            while node.drained and (left := [run for run in node.runs if run not in seen]):
                ends = {spawn(run.over(), name=f"end of {run.order.spec.name}") for run in left}
                try:
                    while any(not end.done() for end in ends) and node.drained:
                        waiting = [resumed, *(end for end in ends if not end.done())]
                        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    await cancel_and_wait(*ends)
                seen.update(left)
        finally:
            await cancel_and_wait(resumed)
        if not node.drained:
            raise Conflict(
                f"the node {node.name!r} was resumed before it was empty, and stays",
                code="node_resumed",
            )

    async def _resumed(self, node: KnownNode) -> None:
        while node.drained:
            await self._news.wait()

    async def _refuse_where_used(self, node: KnownNode) -> None:
        """Raise :class:`Conflict` where llama-servers would end that aren't ours to end."""
        if not node.up:
            return
        state: NodeState = await node.ask("state", self.gateway)
        known = {run.order.server for run in node.runs}
        models = {
            one.order.spec.name
            for one in state.servers
            if one.order.gateway != self.gateway
            or (self.shared and one.ready is not None and one.order.server not in known)
        }
        if models:
            raise Conflict(
                f"other gateways run {', '.join(sorted(models))} on the node {node.name!r}: "
                "unload it there, or drain the node there, and then remove it",
                code="node_in_use",
            )

    def _find(self, name: str) -> KnownNode:
        node = self._nodes.get(name)
        if node is None:
            there = ", ".join(sorted(self._nodes)) or "none"
            raise UnknownNode(f"there is no node {name[:63]!r}; nodes that have joined: {there}")
        return node
