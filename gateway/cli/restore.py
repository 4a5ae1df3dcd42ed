"""``llm-gateway restore FILE``: put back what ``backup`` has saved, also on another machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gateway.backup import BackupError, restore
from gateway.cli.parser import explain
from gateway.config.places import find_config


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the argument and options of the command."""
    parser.add_argument("file", type=Path, metavar="FILE", help="what `backup` has written")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="where gateway.yaml is to be (default: where it is now, else conf/gateway.yaml)",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace other files, keeping them as *.bak"
    )
    parser.set_defaults(run=run)
    explain(
        parser,
        "Puts back what `backup` has saved: gateway.yaml at its place, everything "
        "else where that says. Nothing is changed unless the whole file is sound, "
        "and while a gateway runs there.",
        examples=[
            "llm-gateway restore gateway.backup",
            "sudo llm-gateway restore gw.backup --config /etc/llm-gateway/gateway.yaml",
        ],
    )


def run(args: argparse.Namespace) -> int:
    """Restore it. Return 0, or 1 with the reason on stderr."""
    config = args.config or find_config() or Path("conf/gateway.yaml")
    try:
        written = restore(args.file, config, force=args.force)
    except BackupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename or args.file}: {error.strerror}", file=sys.stderr)
        return 1
    for file in written:
        print(f"wrote  {file}")
    if not written:
        print("everything is as in the backup already")
    return 0
