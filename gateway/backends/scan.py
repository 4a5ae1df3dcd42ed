"""Finds the models below ``llm_storage`` that models.json doesn't name, and proposes entries.
Blocks.

What ``llm-gateway models scan`` shows and ``GET /admin/storage`` answers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from gateway.backends.command import find_program
from gateway.backends.machine import read_machine
from gateway.backends.proposal import Proposal, propose
from gateway.config.settings import Settings
from gateway.errors import LoadFailed
from gateway.models.catalog import Catalog
from gateway.models.paths import named_files
from gateway.models.storage import Found, scan


class Proposed(NamedTuple):
    """Proposed entries. ``doubt``: why they may be wrong for this machine."""

    proposals: list[Proposal]
    doubt: str | None


class Scanned(NamedTuple):
    """The result of a scan. ``named``: how many files were left out because ``catalog`` names
    them.
    """

    found: list[Found]
    proposals: list[Proposal]
    named: int
    doubt: str | None

    def as_json(self) -> list[dict[str, Any]]:
        """Return one object for each file, in the order of folders and names."""
        by_file = {one.found.file: one for one in self.proposals}
        return [_object(one, by_file.get(one.file)) for one in self.found]


def scan_storage(settings: Settings, catalog: Catalog, folder: Path | None = None) -> Scanned:
    """Look through ``folder``, which is all of ``llm_storage`` unless it is given.

    Raises ``OSError`` where the folder can't be read.
    """
    storage = settings.llm_storage.expanduser()
    named = set(named_files(catalog, storage))
    found = scan(storage if folder is None else folder, leave_out=named, root=storage)
    proposed = proposals_for(found, settings, catalog)
    return Scanned(found, proposed.proposals, len(named), proposed.doubt)


def proposals_for(found: Iterable[Found], settings: Settings, catalog: Catalog) -> Proposed:
    """Return entries that fit this machine, under unused names. It measures the devices."""
    program: tuple[str, ...] = ()
    doubt = None
    try:
        program = find_program(settings.llama_server, os.environ)
    except LoadFailed as error:
        doubt = error.detail or error.message
    machine = read_machine(program, dict(os.environ))
    taken = {*catalog.models, *catalog.aliases}
    wanted = settings.scheduler.memory_budget
    budget = machine.budget if wanted == "auto" else min(wanted, machine.budget)
    proposals = list(propose(found, machine, settings.llm_storage, taken, budget=budget))
    return Proposed(proposals, doubt)


def _object(found: Found, proposal: Proposal | None) -> dict[str, Any]:
    return {
        "file": found.reference,
        "size": found.size,
        "parts": found.parts,
        "task": found.task.value if found.task is not None else None,
        "architecture": found.architecture,
        "quantisation": found.quantisation,
        "context": found.trained,
        "template": found.template,
        "tools": found.tools,
        "vision": found.vision,
        "audio": found.audio,
        "projector": found.projector,
        "problem": found.problem,
        "name": proposal.name if proposal is not None else None,
        "entry": proposal.entry if proposal is not None else None,
        "memory": proposal.memory if proposal is not None else None,
        "doubt": proposal.doubt if proposal is not None else None,
    }
