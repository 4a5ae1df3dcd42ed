"""``llm-gateway check``: every problem of the configuration and models.json, all at once."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict

from gateway.cli.options import add_config, add_json
from gateway.cli.parser import explain
from gateway.cli.serve import demo_if_bare
from gateway.config.load import load_partly
from gateway.doctor import configuration
from gateway.doctor.configuration import Findings


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_config(parser)
    add_json(parser)
    parser.set_defaults(run=run)
    explain(
        parser,
        "Lists everything wrong with gateway.yaml, models.json and the files they name, all at "
        "once: problems on stdout, warnings on stderr.",
        examples=["llm-gateway check"],
        exits={0: "no problems; there may be warnings", 1: "there are problems"},
        fields={
            "file": "the configuration that was looked at",
            "problems[].file": "the file it is in",
            "problems[].key": "where in it, like `tls.certificate`; may be empty",
            "problems[].value": "what stands there, where that isn't secret; or null",
            "problems[].message": "what is wrong",
            "problems[].allowed": "what is allowed, in words; or null",
            "warnings": "list of sentences",
        },
    )


def run(args: argparse.Namespace) -> int:
    """Print problems on stdout and warnings on stderr. Return 1 if there is a problem."""
    label, problems, warnings = find_problems(args.config)
    if args.json:
        shown = {"file": label, "problems": list(map(asdict, problems)), "warnings": warnings}
        print(json.dumps(shown, indent=2, ensure_ascii=False))
        return 1 if problems else 0
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


def find_problems(config: str | os.PathLike[str] | None) -> Findings:
    """Return everything wrong with the configuration, models.json and the files they name.
    Blocks.
    """
    loaded, problems = load_partly(config)
    return configuration.find_problems(demo_if_bare(loaded), problems)
