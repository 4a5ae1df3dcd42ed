"""The folder of saved conversations while no gateway uses it. Everything here blocks.

Whoever looks into it holds its lock meanwhile. Raises :class:`Unusable` where a gateway does, or
where the folder is another user's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from gateway.conversations.counts import CacheReport, all_spared
from gateway.conversations.files import CacheFiles
from gateway.conversations.index import Index, Saved, shown_openings


def look(folder: Path, max_size: int | Literal["auto"]) -> CacheReport:
    """Return what is saved in ``folder``, which need not be there."""
    index, budget = Index(), 0
    if folder.is_dir():
        with _opened(folder, max_size) as (files, found):
            for saved in found:
                index.add(saved)
            budget = files.budget(index.size)
    return CacheReport(
        folder=str(folder),
        problem=None,
        conversations=len(index),
        size=index.size,
        budget=budget,
        models=all_spared(index.of_models, {}),
        keys=all_spared(index.of_owners, {}),
        openings=shown_openings(index),
    )


def clear(folder: Path, owner: str | None, model: str | None) -> int:
    """Remove what is saved of ``owner`` and of ``model``, ``None``: of all; return how many."""
    if not folder.is_dir():
        return 0
    with _opened(folder, "auto") as (files, found):
        going = [
            saved
            for saved in found
            if owner in (None, saved.owner) and model in (None, saved.model)
        ]
        files.remove(*going)
    return len(going)


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
