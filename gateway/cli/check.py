"""``llm-gateway check``: every problem of the configuration and models.json, at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from gateway.api.without_keys import warning_of, why_not_open
from gateway.backends.command import bundled_program, find_program
from gateway.backends.files import faults
from gateway.backends.gpus_seen import GpusSeen
from gateway.backends.machine import read_machine
from gateway.backends.options import gpu_layers
from gateway.backends.remote import client_context
from gateway.catalog import Catalog, ModelSpec
from gateway.cli.combinations import combinations
from gateway.cli.options import add_config
from gateway.cli.serve import demo_if_bare
from gateway.config import Loaded, Settings, load_partly
from gateway.endpoints import read_key
from gateway.errors import GatewayError
from gateway.library import read_partly
from gateway.validation import Problem


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_config(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print problems on stdout, warnings on stderr. 1 if there is a problem."""
    loaded, problems = load_partly(args.config)
    loaded = demo_if_bare(loaded)
    settings, label = loaded.settings, str(loaded.file or "built-in defaults")
    warnings = _not_read(loaded)
    problems += _check_data_dir(settings, label)
    if (reason := why_not_open(settings)) is not None:
        problems.append(Problem(label, "auth", None, reason))
    if (warning := warning_of(settings)) is not None:
        warnings.append(f"{label}: {warning}")
    if settings.tls.enabled:
        from gateway.tls import inspect
        from gateway.tls.acme import inspect_acme

        judge = inspect if settings.tls.acme is None else inspect_acme
        inspection = judge(settings.tls, file=label)
        problems += inspection.errors
        warnings += map(str, inspection.warnings)
    catalog, wrong = read_partly(settings.models_file)
    if not catalog.models or not all(spec.url for spec in catalog.models.values()):
        problems += _check_program(settings, label)
    problems += wrong
    for problem, sure in _check_models(catalog, settings):
        if sure:
            problems.append(problem)
        else:
            warnings.append(str(problem))
    problems += _check_remote(catalog, settings)
    warnings += _without_gpu(catalog, settings)
    warnings += catalog.warnings
    for spec in catalog.models.values():
        warnings += combinations(spec, settings.llm_storage)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for problem in problems:
        print(problem)
    if problems:
        print(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}", file=sys.stderr)
        return 1
    if warnings:
        print(f"{label}: no problems, {len(warnings)} warning{'s' if len(warnings) > 1 else ''}")
    else:
        print(f"{label}: everything is in order")
    return 0


def _without_gpu(catalog: Catalog, settings: Settings) -> list[str]:
    """GPUs that were here before and are gone, and models that ask for one in vain."""
    own = [spec for spec in catalog.models.values() if not spec.url]
    try:
        program = find_program(settings.llama_server, os.environ)
    except GatewayError:
        return []
    if not own:
        return []
    machine = read_machine(program, os.environ)
    file = settings.data_dir / "gpus.json"
    seen = GpusSeen(file, program, os.environ, remember=False)
    problem = seen.compare(machine)
    warnings = [problem] if problem is not None else []
    for spec in own:
        asked = "requireGpu" if spec.require_gpu else None
        if (layers := gpu_layers(spec)) and asked is None:
            asked = f"gpuLayers {layers}"
        if asked is None or machine.gpu:
            continue
        then = "it is not loaded" if spec.require_gpu else "it runs on the CPU"
        warnings.append(f"{spec.name}: {asked}, but llama-server finds no GPU: {then}")
    return warnings


def _not_read(loaded: Loaded) -> list[str]:
    """Files that look as if they were meant for the gateway."""
    if loaded.file is None and (old := Path("config.js")).exists():
        return [
            f"{old.absolute()} is not read: settings stand in conf/gateway.yaml, which "
            "`llm-gateway init DIR` makes"
        ]
    return []


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


def _check_models(catalog: Catalog, settings: Settings) -> Iterator[tuple[Problem, bool]]:
    """Each with whether it is sure that a load fails of it."""
    file = str(settings.models_file)
    understood = _bundled_arguments(settings)
    for spec in catalog.models.values():
        if spec.url:
            continue
        for fault in faults(spec, settings.llm_storage):
            key = f"{spec.name}.{fault.key}"
            yield Problem(file, key, repr(fault.value), fault.message), fault.sure
        if understood is not None and (wrong := understood(spec)) is not None:
            yield Problem(file, f"{spec.name}.extraArgs", None, wrong), True


def _bundled_arguments(settings: Settings) -> Callable[[ModelSpec], str | None] | None:
    """What says of a model which argument the bundled llama-server doesn't take, if it is used."""
    try:
        if find_program(settings.llama_server, os.environ) != bundled_program():
            return None
    except GatewayError:
        return None
    from gateway.backends import bundled

    def understood(spec: ModelSpec) -> str | None:
        try:
            bundled.parse(spec.extra_args, {})
        except bundled.UsageError as error:
            return f"the bundled llama-server says: {str(error).removeprefix('error: ')}"
        return None

    return understood


def _check_remote(catalog: Catalog, settings: Settings) -> list[Problem]:
    """Keys and CA files of models elsewhere, as they are here and now; nobody is asked."""
    problems = []
    for name, spec in catalog.models.items():
        if spec.key is not None:
            try:
                read_key(spec.key.get_secret_value(), os.environ)
            except ValueError as error:
                problems.append(Problem(str(settings.models_file), f"{name}.key", None, str(error)))
        if spec.ca_file is not None:
            try:
                client_context(spec.ca_file)
            except ValueError as error:
                key = f"{name}.caFile"
                problems.append(Problem(str(settings.models_file), key, None, str(error)))
    return problems
