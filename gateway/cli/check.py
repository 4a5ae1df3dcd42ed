"""``llm-gateway check``: every problem of the configuration and models.json, at once."""

from __future__ import annotations

import argparse
import os
import sys

from gateway.api.without_keys import warning_of, why_not_open
from gateway.backends.command import find_program, resolve_model_path
from gateway.backends.remote import client_context
from gateway.catalog import Catalog
from gateway.cli.options import add_config
from gateway.cli.serve import demo_if_bare
from gateway.config import Settings, load_settings
from gateway.endpoints import read_key
from gateway.errors import GatewayError
from gateway.library import read_catalog
from gateway.validation import InvalidFiles, Problem


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_config(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print problems on stdout, warnings on stderr. 1 if there is a problem."""
    problems: list[Problem] = []
    warnings: list[str] = []
    settings: Settings | None = None
    label = "configuration"
    try:
        loaded = demo_if_bare(load_settings(args.config))
        settings, label = loaded.settings, str(loaded.file or "built-in defaults")
    except InvalidFiles as error:
        problems += error.problems
        settings = _settings_for_the_rest(args.config)
    if settings is not None:
        problems += _check_data_dir(settings, label)
        if (reason := why_not_open(settings)) is not None:
            problems.append(Problem(label, "auth.enabled", "false", reason))
        if (warning := warning_of(settings)) is not None:
            warnings.append(f"{label}: {warning}")
        if settings.tls.enabled:
            from gateway.tls import inspect
            from gateway.tls.acme import inspect_acme

            judge = inspect if settings.tls.acme is None else inspect_acme
            inspection = judge(settings.tls, file=label)
            problems += inspection.errors
            warnings += map(str, inspection.warnings)
        try:
            catalog, _ = read_catalog(settings.models_file)
        except InvalidFiles as error:
            problems += _check_program(settings, label)
            problems += error.problems
        else:
            if not catalog.models or not all(spec.url for spec in catalog.models.values()):
                problems += _check_program(settings, label)
            problems += _check_models(catalog, settings)
            problems += _check_remote(catalog, settings)
            warnings += catalog.warnings
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for problem in problems:
        print(problem)
    if problems:
        print(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}", file=sys.stderr)
        return 1
    print(f"{label}: everything is in order")
    return 0


def _settings_for_the_rest(config: str | None) -> Settings | None:
    """A models.json can be checked although the configuration is wrong elsewhere."""
    from gateway.config import default_root, find_config, project_root

    file = find_config(config)
    root = project_root(file) if file is not None else default_root()
    models_file = root / "data" / "models.json"
    if not models_file.is_file():
        return None
    return Settings(models_file=models_file, data_dir=root / "data")


def _check_program(settings: Settings, label: str) -> list[Problem]:
    try:
        find_program(settings.llama_server, os.environ)
    except GatewayError as error:
        return [
            Problem(
                label, "llama_server", repr(settings.llama_server), error.detail or error.message
            )
        ]
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


def _check_models(catalog: Catalog, settings: Settings) -> list[Problem]:
    problems = []
    for name, spec in catalog.models.items():
        files = {
            "params.model": spec.params.model,
            "params.grammarFile": spec.params.grammar_file,
            "mmproj": spec.mmproj,
            "draftModel": spec.draft_model,
        }
        for key, reference in files.items():
            if reference is None:
                continue
            try:
                path = resolve_model_path(reference, settings.llm_storage)
                wrong = None if path.is_file() else f"the file {path} does not exist"
            except GatewayError as error:
                wrong = error.detail or error.message
            if wrong:
                file = str(settings.models_file)
                problems.append(Problem(file, f"{name}.{key}", repr(reference), wrong))
    return problems


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
