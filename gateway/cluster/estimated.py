"""What a model needs on another machine than the one that has its files."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.backends.memory import Needs
from gateway.backends.placement import Demand
from gateway.cluster.files import has_files
from gateway.models.local_model import LocalModel


async def estimated(spec: LocalModel, llm_storage: Path, *, gpu: bool) -> Demand | None:
    """Return what ``spec``, whose files are here, needs where there is a ``gpu``, or none.

    None: one of its files is missing.
    """
    if not await asyncio.to_thread(has_files, spec, llm_storage):
        return None
    need = await Needs(llm_storage, {}, _nothing, gpu=gpu).need_of(spec)
    return Demand(need.size, need.least, need.ram, need.least_ram, scant=need.scant)


async def _nothing(key: str, size: int) -> None:
    """Remember nothing: an estimate is not measured."""
