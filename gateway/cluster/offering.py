"""Has nodes offer files to another one that lacks them, and ends that again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

from gateway.cluster.offer import Offer
from gateway.errors import GatewayError
from gateway.models.local_model import LocalModel


class Asked(Protocol):
    """See :class:`gateway.cluster.known_node.KnownNode`."""

    async def ask(self, what: str, /, *arguments: Any) -> Any: ...


NodeT = TypeVar("NodeT", bound=Asked)


async def offers(
    sources: Sequence[NodeT], gateway: str, spec: LocalModel, files: list[str]
) -> list[tuple[NodeT, Offer]]:
    """Have each of ``sources`` that has ``files`` of ``spec`` offer them."""
    asked = await asyncio.gather(
        *(node.ask("give", gateway, spec, files) for node in sources), return_exceptions=True
    )
    return [
        (node, offer)
        for node, offer in zip(sources, asked, strict=True)
        if isinstance(offer, Offer)
    ]


async def take_back(made: Iterable[tuple[Asked, Offer]]) -> None:
    """End offers."""
    for node, offer in made:
        with contextlib.suppress(GatewayError):  # it ends by itself
            await node.ask("take_back", offer.id)
