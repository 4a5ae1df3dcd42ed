"""All that is saved: on the disk of this machine, and on those of nodes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal

from gateway.backends.nodes import Nodes
from gateway.conversations.counts import CacheReport, Spared
from gateway.conversations.files import CacheFiles
from gateway.conversations.index import Saved
from gateway.conversations.node_facts import NodeFacts, nodes_in
from gateway.conversations.node_store import NodeStore
from gateway.conversations.nowhere import Nowhere
from gateway.conversations.reported import reported, spared_of
from gateway.conversations.shelf import Shelf
from gateway.conversations.store import HereStore
from gateway.tasks import spawn

_log = logging.getLogger(__name__)

#: Seconds that a deletion waits for nodes.
_PATIENCE: Final = 10.0


class Shelves:
    """Those of one gateway: that in ``folder``, and one for each of ``nodes``."""

    def __init__(
        self,
        folder: Path,
        nodes: Nodes | None,
        *,
        max_size: int | Literal["auto"],
        max_age: float,
        min_tokens: int,
    ) -> None:
        self._folder = folder
        self._nodes = nodes
        self._max_size = max_size
        self._max_age = max_age
        self._min_tokens = min_tokens
        #: That of this machine.
        self.here = Shelf(
            HereStore(CacheFiles(folder, max_size)), max_age=max_age, min_tokens=min_tokens
        )
        self._on_nodes: dict[str, Shelf] = {}
        self._opened = False
        if nodes is not None and not nodes.shared:  # else none knows what is in slots
            nodes.saved.met, nodes.saved.removed = self._met, self._removed

    def __iter__(self) -> Iterator[Shelf]:
        return iter((self.here, *self._on_nodes.values()))

    async def open(self) -> None:
        """Find what is there. Without a folder everything else goes on."""
        await self.here.open()
        for facts in await asyncio.to_thread(nodes_in, self._folder):
            self._made(facts)
        self._opened = True
        for shelf in tuple(self._on_nodes.values()):
            await shelf.open()

    async def close(self) -> None:
        """Wait until everything is written, or emptied, and let go of the folders."""
        self._opened = False
        await asyncio.gather(*(shelf.close() for shelf in self))

    def of(self, node: str | None) -> Shelf:
        """Return that of a node; ``None``: of this machine."""
        if node is None:
            return self.here
        shelf = self._on_nodes.get(node)
        if shelf is None:
            shelf = self._made(NodeFacts(self._folder, node))
            if self._opened:
                shelf.keep_track(spawn(shelf.open(), name=f"open what is saved on {node}"))
        return shelf

    def _made(self, facts: NodeFacts) -> Shelf:
        node, nodes = facts.node, self._nodes
        slots = Nowhere(node) if nodes is None else nodes.saved.on(node)
        store = NodeStore(facts, slots, self._max_size)
        shelf = self._on_nodes[node] = Shelf(
            store, max_age=self._max_age, min_tokens=self._min_tokens, beside=self.here
        )
        shelf.is_known = self.here.is_known
        return shelf

    def _met(self, node: str) -> None:
        """Have here and on ``node`` the same, which has been away, or is new."""
        if (shelf := self._on_nodes.get(node)) is None:
            self.of(node)
        else:
            shelf.keep_track(spawn(shelf.reconcile(), name=f"compare what is saved on {node}"))

    def _removed(self, node: str) -> None:
        """Forget what is on ``node``: if it joins again, it is told to remove that."""
        if (shelf := self._on_nodes.get(node)) is not None:
            shelf.forget(goes=lambda saved: True)

    # --- what is saved -------------------------------------------------------------------------

    def know(self, is_known: Callable[[str], bool]) -> None:
        """Keep nothing of owners that are not known, from now on."""
        for shelf in self:
            shelf.is_known = is_known

    def openings(self) -> list[Saved]:
        """Return all openings with tools."""
        return [saved for shelf in self for saved in shelf.openings()]

    def has(self, link: bytes) -> bool:
        """Return whether anything that ends with ``link`` is saved, of whatever process."""
        return any(shelf.has(link) for shelf in self)

    def forget(self, *, goes: Callable[[Saved], bool]) -> int:
        """Remove everything that ``goes``; return how many conversations that were."""
        return sum(shelf.forget(goes=goes) for shelf in self)

    async def removed(self) -> None:
        """Return when what was forgotten is gone, but for what is still being written, and for
        what is on nodes that don't answer.
        """
        await self.here.removed()
        on_nodes = [spawn(shelf.removed(), name="remove") for shelf in self._on_nodes.values()]
        if on_nodes:
            await asyncio.wait(on_nodes, timeout=_PATIENCE)

    # --- what is told of it --------------------------------------------------------------------

    def of_model(self, model: str) -> Spared | None:
        """Return what is saved of ``model`` and was spared; ``None``: nothing yet."""
        return spared_of(model, self)

    def on_nodes(self, model: str) -> dict[str, int]:
        """Return how many conversations of ``model`` are on each node that has some."""
        found = {name: one.index.of_models.get(model) for name, one in self._on_nodes.items()}
        return {name: held.conversations for name, held in found.items() if held is not None}

    async def report(self) -> CacheReport:
        """Return what is saved of everything, and was spared."""
        return await reported(self.here, self._on_nodes)
