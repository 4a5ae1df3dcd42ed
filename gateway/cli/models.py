"""``llm-gateway models``: the models of models.json, and what a running gateway does with them."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from gateway.catalog import Catalog
from gateway.cli.control import control_request
from gateway.cli.options import add_config
from gateway.cli.serve import demo_if_bare
from gateway.cli.table import print_table
from gateway.config import load_settings
from gateway.library import read_catalog
from gateway.validation import InvalidFiles


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_config(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """A table: name, state, memory, personalities. Works without a running gateway too.

    While models.json is broken, it shows what the running gateway goes on with, if there is one.
    """
    settings = demo_if_bare(load_settings(args.config)).settings
    answer = control_request(settings, "GET", "/admin/models")
    running = answer[1]["models"] if answer is not None and answer[0] == 200 else []
    try:
        catalog, _ = read_catalog(settings.models_file)
    except InvalidFiles as error:
        if not running:
            raise
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        print(
            "models.json is broken: these are the models that the running gateway goes on with",
            file=sys.stderr,
        )
        rows = [_row(model["name"], model, model["personalities"]) for model in running]
    else:
        rows = _rows(catalog, running)
    print_table(("NAME", "STATE", "MEMORY", "PERSONALITIES"), rows)
    return 0


def _rows(catalog: Catalog, running: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    states = {model["name"]: model for model in running}
    rows = []
    for name, spec in catalog.models.items():
        known = {
            "state": "unknown" if states else "not running",
            "servers": spec.url,
            **states.get(name, {}),
        }
        known["memory"] = known.get("memory") or spec.memory
        rows.append(_row(name, known, spec.personalities))
    return rows


def _row(name: str, known: dict[str, Any], personalities: Any) -> tuple[str, ...]:
    memory = "elsewhere" if known["servers"] else _size(known["memory"])
    return name, known["state"], memory, ", ".join(personalities) or "-"


def _size(value: int | None) -> str:
    return f"{value / 2**30:.1f} GiB" if value else "-"
