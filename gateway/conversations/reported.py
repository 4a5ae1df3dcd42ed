"""What is told of all that is saved, here and on nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from gateway.conversations.counts import (
    CacheReport,
    SavedOnNode,
    Spared,
    all_spared,
    on_one_node,
    spared,
    sum_held,
)
from gateway.conversations.index import shown_openings
from gateway.conversations.shelf import Shelf


async def reported(here: Shelf, nodes: Mapping[str, Shelf]) -> CacheReport:
    """Return what is saved of everything, and was spared; ``nodes``: by name."""
    several = [here, *nodes.values()]
    here.tally.gather(here.seconds)
    budget, problem = await here.room()
    everything = [saved for shelf in several for saved in shelf.index]
    return CacheReport(
        folder=here.store.where,
        problem=problem,
        conversations=len(here.index),
        size=here.index.size,
        budget=budget,
        models=all_spared(sum_held(one.index.of_models for one in several), here.tally.models),
        keys=all_spared(sum_held(one.index.of_owners for one in several), here.tally.keys),
        openings=await asyncio.to_thread(shown_openings, everything),
        nodes=[await _on_node(name, shelf) for name, shelf in sorted(nodes.items())],
    )


async def _on_node(name: str, shelf: Shelf) -> SavedOnNode:
    store = shelf.store
    budget, problem = await shelf.room()
    known = budget if store.disk else 0
    return on_one_node(name, store.problem or problem, shelf.index.of_models, known)


def spared_of(model: str, shelves: Iterable[Shelf]) -> Spared | None:
    """Return what is saved of ``model`` and was spared; ``None``: nothing yet."""
    several = tuple(shelves)
    tally = several[0].tally  # all count together
    tally.gather(several[0].seconds)
    there = (one.index.of_models for one in several)
    held = sum_held({model: of_models[model]} for of_models in there if model in of_models)
    return spared(held.get(model), tally.models.get(model))
