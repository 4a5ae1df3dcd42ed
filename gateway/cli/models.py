"""``llm-gateway models``: the models of models.json, and their states in a running gateway."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from gateway.cli import models_edit, models_scan
from gateway.cli.control import control_request
from gateway.cli.models_json import as_json
from gateway.cli.options import add_json
from gateway.cli.parser import explain
from gateway.cli.serve import demo_if_bare
from gateway.cli.table import print_table
from gateway.cli.which_gateway import add_gateway, remote_client
from gateway.config.load import load_settings
from gateway.library import is_missing, read_catalog
from gateway.models.catalog import EMPTY
from gateway.models.local_model import LocalModel
from gateway.models.model import Model
from gateway.problems import InvalidFiles

_LIST = "without one: a table of the models, their state, memory and personalities"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the commands and their options."""
    add_gateway(parser)
    add_json(parser)
    parser.set_defaults(run=run)
    explain(
        parser,
        "Lists the models of models.json, and what a running gateway does with them.",
        examples=["llm-gateway models", "llm-gateway models scan"],
        fields={
            "[].name": "the model's name",
            "[].display_name": "the one that models.json has for people, or null",
            "[].state": "stopped, starting, ready, draining, stopping, failed, ...; `not running`: "
            "no gateway runs; `unknown`: it doesn't know the model yet; for a key that is no "
            "administrator's `loaded` or `not loaded`",
            "[].memory": "bytes it takes, or is said to take; or null",
            "[].personalities": "list of their names",
            "[].elsewhere": "whether another server has it; null for a key that is no "
            "administrator's",
        },
    )
    actions = parser.add_subparsers(metavar="[ACTION]", title="actions", description=_LIST)
    models_scan.add_options(actions)
    models_edit.add_options(actions)


def run(args: argparse.Namespace) -> int:
    """Print a table: name, state, memory, personalities. No gateway has to run.

    While models.json is broken, it shows the models that a running gateway still uses.
    """
    from gateway.cli.models_remote import listed

    client = remote_client(args)
    models = listed(client) if client is not None else _here(args.config)
    if args.json:
        print(json.dumps(models, indent=2, ensure_ascii=False))
        return 0
    rows = [
        (
            one["name"],
            one["state"],
            "elsewhere" if one["elsewhere"] else _size(one["memory"]),
            ", ".join(one["personalities"]) or "-",
        )
        for one in models
    ]
    print_table(("NAME", "STATE", "MEMORY", "PERSONALITIES"), rows)
    if not rows and client is None:
        print("there are none: `llm-gateway models scan` and `pull` find some", file=sys.stderr)
    return 0


def _here(config: str | None) -> list[dict[str, Any]]:
    settings = demo_if_bare(load_settings(config)).settings
    answer = control_request(settings, "GET", "/admin/models")
    running = answer[1]["models"] if answer is not None and answer[0] == 200 else []
    try:
        missing = is_missing(settings.models_file)
        catalog = EMPTY if missing else read_catalog(settings.models_file)[0]
    except InvalidFiles as error:
        if not running:
            raise
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        print(
            "models.json is broken: these are the models that the running gateway goes on with",
            file=sys.stderr,
        )
        return [as_json(one["name"], one, one["personalities"]) for one in running]
    states = {model["name"]: model for model in running}
    listed = []
    for name, spec in catalog.models.items():
        unknown = {"state": "unknown" if states else "not running", "servers": spec.servers}
        known = {**unknown, **states.get(name, {}), "display_name": spec.meta.display_name}
        known["memory"] = known.get("memory") or _declared(spec)
        listed.append(as_json(name, known, spec.personalities))
    return listed


def _declared(spec: Model) -> int | None:
    return spec.memory if isinstance(spec, LocalModel) else None


def _size(value: int | None) -> str:
    return f"{value / 2**30:.1f} GiB" if value else "-"
