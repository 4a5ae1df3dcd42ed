"""The folder of saved conversations while no gateway uses it. Everything here blocks.

Whoever looks into it holds its lock meanwhile. Raises :class:`Unusable` where a gateway does, or
where the folder is another user's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from gateway.conversations.counts import CacheReport, all_spared, on_one_node, sum_held
from gateway.conversations.files import CacheFiles
from gateway.conversations.index import Index, Saved, shown_openings
from gateway.conversations.node_facts import nodes_in


def look(folder: Path, max_size: int | Literal["auto"]) -> CacheReport:
    """Return what is saved in ``folder``, which need not be there, and what on nodes."""
    here, budget, nodes = Index(), 0, dict[str, Index]()
    if folder.is_dir():
        with _opened(folder, max_size) as (files, found):
            here = _index_of(found)
            budget = files.budget(here.size)
        for facts in nodes_in(folder):
            with contextlib.closing(facts):
                nodes[facts.node] = _index_of(facts.open())
    several = [here, *nodes.values()]
    return CacheReport(
        folder=str(folder),
        problem=None,
        conversations=len(here),
        size=here.size,
        budget=budget,
        models=all_spared(sum_held(one.of_models for one in several), {}),
        keys=all_spared(sum_held(one.of_owners for one in several), {}),
        openings=shown_openings([saved for one in several for saved in one]),
        nodes=[
            on_one_node(node, "no gateway runs", one.of_models, 0) for node, one in nodes.items()
        ],
    )


def _index_of(found: list[Saved]) -> Index:
    index = Index()
    for saved in found:
        index.add(saved)
    return index


def clear(folder: Path, owner: str | None, model: str | None) -> int:
    """Remove what is saved of ``owner`` and of ``model``, ``None``: of all; return how many.

    What is on nodes they remove when the gateway meets them.
    """
    if not folder.is_dir():
        return 0

    def those(found: list[Saved]) -> list[Saved]:
        return [
            saved
            for saved in found
            if owner in (None, saved.owner) and model in (None, saved.model)
        ]

    with _opened(folder, "auto") as (files, found):
        going = those(found)
        files.remove(*going)
    removed = len(going)
    for facts in nodes_in(folder):
        with contextlib.closing(facts):
            going = those(facts.open())
            facts.remove(saved.name for saved in going)
            removed += len(going)
    return removed


@contextlib.contextmanager
def _opened(
    folder: Path, max_size: int | Literal["auto"]
) -> Iterator[tuple[CacheFiles, list[Saved]]]:
    files = CacheFiles(folder, max_size)
    found = files.open()
    try:
        yield files, found
    finally:
        files.close()
