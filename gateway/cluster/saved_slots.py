"""What this gateway's llama-servers have written of their slots on a node, asked of that node."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from gateway.backends.nodes import Room
from gateway.cluster.known_node import KnownNode
from gateway.cluster.link import ANSWER, Unreachable

#: Seconds for each byte whose checksum is made: of a slow disk.
_PER_BYTE: Final = 1 / 50e6


class NodeSlots:
    """Those on ``node``, one of ``nodes`` if it is there. ``gateway`` returns whose they are."""

    def __init__(
        self, node: str, nodes: Mapping[str, KnownNode], gateway: Callable[[], str]
    ) -> None:
        self.node = node
        self._nodes = nodes
        self._gateway = gateway

    @property
    def problem(self) -> str | None:
        """See :class:`gateway.backends.nodes.SavedSlots`, as for all that follows."""
        if (node := self._nodes.get(self.node)) is None:
            return "it has not been heard of since this gateway started"
        return None if node.up else node.problem

    @property
    def room(self) -> Room | None:
        node = self._nodes.get(self.node)
        # A node of an earlier version doesn't tell, nor does it keep anything.
        return None if node is None else getattr(node.has, "disk", None)

    async def meet(self, known: Mapping[str, int]) -> Collection[str]:
        gone: Collection[str] = await self._ask("meet", dict(known))
        return gone

    async def keep(self, name: str, written: int) -> int | None:
        check: int | None = await self._ask("keep", name, written, size=written)
        return check

    async def is_whole(self, name: str, size: int, check: int) -> bool:
        whole: bool = await self._ask("is_whole", name, size, check, size=size)
        return whole

    async def remove(self, names: Sequence[str]) -> None:
        await self._ask("remove", list(names))

    async def _ask(self, what: str, *arguments: Any, size: int = 0) -> Any:
        node = self._nodes.get(self.node)
        if node is None or not node.up:
            raise Unreachable(self.problem or "it is away")
        within = ANSWER + size * _PER_BYTE
        return await node.ask("saved", self._gateway(), what, *arguments, within=within)


class SavedOnNodes:
    """Those on all ``nodes``. ``gateway`` returns whose they are."""

    def __init__(self, nodes: Mapping[str, KnownNode], gateway: Callable[[], str]) -> None:
        self._nodes = nodes
        self._gateway = gateway
        self.met: Callable[[str], None] = lambda node: None
        self.removed: Callable[[str], None] = lambda node: None

    def on(self, node: str) -> NodeSlots:
        """See :class:`gateway.backends.nodes.SavedOnNodes`."""
        return NodeSlots(node, self._nodes, self._gateway)
