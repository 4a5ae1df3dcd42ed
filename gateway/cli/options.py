"""Options that many commands have."""

from __future__ import annotations

import argparse


def add_config(parser: argparse.ArgumentParser, *, again: bool = False) -> None:
    """Add ``--config FILE``. ``again``: the command above has it too, and it may have been
    given there.
    """
    parser.add_argument(
        "--config",
        metavar="FILE",
        default=argparse.SUPPRESS if again else None,
        help="instead of gateway.yaml in one of the usual places",
    )


def add_json(
    parser: argparse.ArgumentParser, what: str = "the same for programs", *, again: bool = False
) -> None:
    """Add ``--json``. ``again``: as in :func:`add_config`."""
    parser.add_argument(
        "--json",
        action="store_true",
        default=argparse.SUPPRESS if again else False,
        help=what,
    )
