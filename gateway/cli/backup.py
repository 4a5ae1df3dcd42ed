"""``llm-gateway backup FILE``: everything that can't be downloaded again, in one file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gateway.backup import BackupError, BackupSource, make
from gateway.cli.options import add_config
from gateway.cli.parser import explain
from gateway.config.places import find_config


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the argument and options of the command."""
    add_config(parser)
    parser.add_argument("file", type=Path, metavar="FILE", help="where to write it")
    parser.set_defaults(run=run)
    explain(
        parser,
        "Writes configuration, models.json, the database (keys as hashes, usage, "
        "records of requests) and certificates into one file, also while the "
        "gateway runs. The file holds private keys: keep it to yourself. Models "
        "and saved prompt caches are not in it.",
        examples=[
            "llm-gateway backup gateway.backup",
            "sudo llm-gateway backup /mnt/usb/gw",
        ],
    )


def run(args: argparse.Namespace) -> int:
    """Write the backup. Return 0, or 1 with the reason on stderr."""
    try:
        source = BackupSource.at(find_config(args.config))
        made = make(source, args.file)
    except BackupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename or args.file}: {error.strerror}", file=sys.stderr)
        return 1
    for name in made.names:
        print(f"saved  {name}")
    if not made.has_database:
        print(
            "keys, usage and requests are not in it, but in the database of store.url: back that "
            "up with pg_dump",
            file=sys.stderr,
        )
    for file in made.left_out:
        print(f"{file} is not the gateway's own, and not in the backup", file=sys.stderr)
    return 0
