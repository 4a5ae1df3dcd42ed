"""What is known of the disk of a node where there is no cluster any more."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from gateway.backends.nodes import Room
from gateway.errors import Unavailable

_NO_CLUSTER: Final = "this gateway has no cluster in gateway.yaml"


class Nowhere:
    """See :class:`gateway.backends.nodes.SavedSlots`: nobody can be asked."""

    problem: str | None = _NO_CLUSTER
    room: Room | None = None

    def __init__(self, node: str) -> None:
        self.node = node

    async def meet(self, known: Mapping[str, int]) -> Collection[str]:
        """Raise :class:`Unavailable`, as all that follows."""
        raise Unavailable(_NO_CLUSTER)

    async def keep(self, name: str, written: int) -> int | None:
        raise Unavailable(_NO_CLUSTER)

    async def is_whole(self, name: str, size: int, check: int) -> bool:
        raise Unavailable(_NO_CLUSTER)

    async def remove(self, names: Sequence[str]) -> None:
        raise Unavailable(_NO_CLUSTER)
