"""The option that every command takes."""

from __future__ import annotations

import argparse


def add_config(parser: argparse.ArgumentParser) -> None:
    """``--config FILE``."""
    parser.add_argument(
        "--config", metavar="FILE", help="instead of gateway.yaml in one of the usual places"
    )
