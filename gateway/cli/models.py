"""``llm-gateway models``: the models of models.json, and what a running gateway does with them."""

from __future__ import annotations

import argparse

from gateway.cli.control import control_request
from gateway.cli.options import add_config
from gateway.cli.serve import demo_if_bare
from gateway.cli.table import print_table
from gateway.config import load_settings
from gateway.library import read_catalog


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_config(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """A table: name, state, memory, personalities. Works without a running gateway too."""
    settings = demo_if_bare(load_settings(args.config)).settings
    answer = control_request(settings, "GET", "/admin/models")
    states = {}
    if answer is not None and answer[0] == 200:
        states = {model["name"]: model for model in answer[1]["models"]}
    catalog, _ = read_catalog(settings.models_file)
    rows = []
    for name, spec in catalog.models.items():
        known = states.get(name, {})
        rows.append(
            (
                name,
                known.get("state", "unknown" if states else "not running"),
                "elsewhere" if spec.url else _size(known.get("memory") or spec.memory),
                ", ".join(spec.personalities) or "-",
            )
        )
    print_table(("NAME", "STATE", "MEMORY", "PERSONALITIES"), rows)
    return 0


def _size(value: int | None) -> str:
    return f"{value / 2**30:.1f} GiB" if value else "-"
