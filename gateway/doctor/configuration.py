"""Everything wrong with gateway.yaml, models.json and the files that they name, all at once.

Used by ``llm-gateway check``, by `doctor`, and by a running gateway. Blocking.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from gateway.backends.command import find_program
from gateway.backends.entry_check import EntryCheck
from gateway.backends.gpus_seen import GpusSeen
from gateway.backends.machine import Machine, read_machine
from gateway.backends.options import gpu_layers
from gateway.config.load import Loaded
from gateway.config.settings import Settings
from gateway.doctor import cluster
from gateway.doctor.combinations import combinations
from gateway.doctor.slot_options import slot_options
from gateway.errors import GatewayError
from gateway.library import is_missing, read_partly
from gateway.listen_on import faults as faults_of
from gateway.models.catalog import EMPTY, Catalog
from gateway.private_files import is_open_to_all
from gateway.problems import Problem
from gateway.without_keys import warnings_of, why_not_open


class Findings(NamedTuple):
    """Errors and warnings. ``label`` names the configuration for people."""

    label: str
    problems: list[Problem]
    warnings: list[str]


def find_problems(
    loaded: Loaded,
    problems: list[Problem],
    *,
    machine: Machine | None = None,
    look: bool = True,
) -> Findings:
    """Return the ``problems`` that ``load_partly`` found in ``loaded``, and all others.

    ``machine``: its devices, if they are known. Otherwise they are looked for if ``look`` says so,
    which may wake up a GPU's driver.
    """
    settings, label = loaded.settings, str(loaded.file or "built-in defaults")
    warnings = _not_read(loaded) + _open_to_all(settings)
    problems = problems + _check_data_dir(settings, label)
    problems += [Problem(label, "host", repr(h), reason) for h, reason in faults_of(settings.hosts)]
    if (reason := why_not_open(settings)) is not None:
        problems.append(Problem(label, "auth", None, reason))
    warnings += [f"{label}: {warning}" for warning in warnings_of(settings)]
    if settings.tls.enabled:
        from gateway.tls import inspect
        from gateway.tls.acme import inspect_acme

        judge = inspect if settings.tls.acme is None else inspect_acme
        inspection = judge(settings.tls, file=label)
        problems += inspection.errors
        warnings += map(str, inspection.warnings)
    catalog, wrong = EMPTY, list[Problem]()
    if is_missing(settings.models_file):
        warnings.append(
            f"{settings.models_file}: there is no such file yet, so no model is served: "
            "`llm-gateway pull`, `models scan` and `models add` write it"
        )
    else:
        catalog, wrong = read_partly(settings.models_file)
    problems += cluster.problems(settings, label)
    warnings += cluster.warnings(settings, catalog)
    if not catalog.models or catalog.ours:
        problems += _check_program(settings, label)
    problems += wrong
    check = EntryCheck(settings, os.environ)
    for spec in catalog.models.values():
        for problem, sure in check.problems(spec):
            if sure:
                problems.append(problem)
            else:
                warnings.append(str(problem))
    if look or machine is not None:
        warnings += _without_gpu(catalog, settings, machine)
    warnings += catalog.warnings
    for spec in catalog.ours:
        warnings += combinations(spec, settings.llm_storage)
        if settings.cache.enabled:
            warnings += slot_options(spec)
    return Findings(label, problems, warnings)


def _without_gpu(catalog: Catalog, settings: Settings, machine: Machine | None) -> list[str]:
    """Yield GPUs that have disappeared, and models that require one and can't have it."""
    try:
        program = find_program(settings.llama_server, os.environ)
    except GatewayError:
        return []
    if not catalog.ours:
        return []
    machine = machine or read_machine(program, os.environ)
    file = settings.data_dir / "gpus.json"
    seen = GpusSeen(file, program, os.environ, remember=False)
    problem = seen.compare(machine)
    warnings = [problem] if problem is not None else []
    for spec in catalog.ours:
        asked = "requireGpu" if spec.require_gpu else None
        if (layers := gpu_layers(spec)) and asked is None:
            asked = f"gpuLayers {layers}"
        elsewhere = spec.may_run_elsewhere(cluster=settings.cluster is not None)
        if asked is None or machine.gpu or elsewhere:
            continue
        then = "it is not loaded" if spec.require_gpu else "it runs on the CPU"
        warnings.append(f"{spec.name}: {asked}, but llama-server finds no GPU: {then}")
    return warnings


def _not_read(loaded: Loaded) -> list[str]:
    """Yield files that look as if they were meant for the gateway, but aren't read."""
    if loaded.file is None and (old := Path("config.js")).exists():
        return [
            f"{old.absolute()} is not read: settings stand in conf/gateway.yaml, which "
            "`llm-gateway init DIR` makes"
        ]
    return []


def _open_to_all(settings: Settings) -> list[str]:
    """Yield files with keys that every user of this machine can read.

    The private key that is served is checked with its certificate.
    """
    database, acme = settings.database, settings.data_dir / "acme"
    files = [database, database.with_name(f"{database.name}-wal")]
    files += [settings.data_dir / "first-admin-key.txt", *acme.glob("*.pem"), *acme.glob("*/*.pem")]
    served = settings.tls.private_key
    if served is not None:  # the authority's is beside it
        files += [key for key in sorted(served.parent.glob("*-key.pem")) if key != served]
    return [
        f"{file} can be read by every user of this machine: chmod 600 it"
        for file in files
        if is_open_to_all(file)
    ]


def _check_program(settings: Settings, label: str) -> list[Problem]:
    try:
        find_program(settings.llama_server, os.environ)
    except GatewayError as error:
        wrong = (error.detail or error.message).removeprefix("llama_server: ")
        return [Problem(label, "llama_server", repr(settings.llama_server), wrong)]
    return []


def _check_data_dir(settings: Settings, label: str) -> list[Problem]:
    problems = []
    folder = settings.data_dir
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        problems.append(
            Problem(label, "data_dir", repr(str(settings.data_dir)), "cannot be written to")
        )
    return problems
