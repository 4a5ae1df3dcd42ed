"""``llm-gateway store copy``: move keys, usage and records to PostgreSQL, or back into a file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from gateway.backup import BackupError, alone, give_to_owner_of, snapshot
from gateway.cli.keys_here import settings_of
from gateway.cli.options import add_config
from gateway.cli.parser import explain
from gateway.cli.terminal import moves, say
from gateway.errors import BadRequest
from gateway.plurals import counted
from gateway.private_files import make_folder
from gateway.secret import Secret

_CLEAR: Final = "\r\x1b[K"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command below it, and its options."""
    explain(
        parser,
        "Moves the store: keys (as hashes), usage, records of requests, and what else is in it.",
        examples=["llm-gateway store copy", "llm-gateway store copy --back"],
    )
    below = parser.add_subparsers(dest="store_command", metavar="COMMAND", required=True)
    command = below.add_parser("copy", help="copy gateway.db into PostgreSQL, or back")
    add_config(command)
    command.add_argument(
        "--back", action="store_true", help="the other way: into gateway.db, as it is in store.url"
    )
    command.add_argument(
        "--replace",
        action="store_true",
        help="delete what is there already (a gateway.db is kept as gateway.db.bak)",
    )
    command.set_defaults(run=run)
    explain(
        command,
        "Copies everything in gateway.db to the PostgreSQL database of store.url, in one "
        "transaction: all of it, or nothing. Stop the gateways first. gateway.db stays as it is.",
        examples=[
            "llm-gateway store copy",
            "llm-gateway store copy --back --replace",
        ],
    )


def run(args: argparse.Namespace) -> int:
    """Copy it. Return 0, or 1 with the reason on stderr."""
    settings = settings_of(args)
    if settings.store.url is None:
        raise BadRequest(
            "store.url is not set: put it into gateway.yaml, or LLM_GATEWAY_STORE__URL into the "
            "environment, also to copy from there"
        )
    if args.back:
        make_folder(settings.data_dir)
    elif not settings.database.exists():
        raise BadRequest(f"there is no {settings.database}: nothing is to be copied")
    try:
        with alone(settings.data_dir):
            counts = _copy(settings.database, settings.store.url, args)
    except BackupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for table, count in counts.items():
        print(f"copied  {counted(count, 'row')} of {table}")
    if args.back:
        say(f"a gateway without store.url uses {settings.database}")
    else:
        say(f"{settings.database} is left as it is; a gateway with store.url doesn't look at it")
    return 0


def _copy(file: Path, url: Secret, args: argparse.Namespace) -> dict[str, int]:
    from gateway.access.store_copy import copy_store  # SQLAlchemy comes with it

    if args.back and args.replace and file.exists():
        kept = file.with_name(f"{file.name}.bak")
        snapshot(file, kept)
        give_to_owner_of(file.parent, kept)
    ends: tuple[Path | Secret, Path | Secret] = (url, file) if args.back else (file, url)
    try:
        return copy_store(*ends, _show, replace=args.replace)
    finally:
        if moves(sys.stderr):
            print(_CLEAR, end="", file=sys.stderr, flush=True)


def _show(table: str, done: int, total: int) -> None:
    """Show the progress of one table, on a terminal."""
    if moves(sys.stderr):
        text = f"{_CLEAR}{table}: {done:,} of {total:,}"
        print(text, end="", file=sys.stderr, flush=True)
