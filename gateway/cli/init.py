"""``llm-gateway init DIR``: a folder with a commented configuration to start from."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gateway.cli.options import add_config
from gateway.config import skeleton

_FILES = ("conf/gateway.yaml", "data/models.json")


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_config(parser)
    parser.add_argument("dir", type=Path, metavar="DIR", help="the folder, made if needed")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write what isn't there; nothing is overwritten."""
    root: Path = args.dir
    try:
        for name in _FILES:
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                print(f"kept   {target}")
                continue
            target.write_bytes(skeleton(name).read_bytes())
            print(f"wrote  {target}")
        (root / "data").chmod(0o700)
        (root / "ssl").mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        print(f"error: {error.filename or root}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"\nEdit them, then: llm-gateway serve --config {root / _FILES[0]}")
    return 0
