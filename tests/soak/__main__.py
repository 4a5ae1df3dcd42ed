"""``python -m tests.soak``: ordinary requests for a long time, while everything goes wrong.

Three gateways, each a process of its own behind a socket that outlives it: one with TLS that never
restarts, and whose memory is looked at; one with and one without TLS that restart each minute. Each
has three models, and room for two, in scripted llama-servers whose answers name the request that
they belong to. The exit status is 1 if an answer was not one of those that ``allowed.py`` allows
for the faults in force, or if anything is left at the end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import uvloop

from tests.soak.soak import Soak


def main() -> int:
    """Run it: 0 if all was as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=300, help="requests a second, in all")
    parser.add_argument("--pace", type=float, default=1, help="things go wrong so much more often")
    given = parser.parse_args()
    soak = Soak(given.minutes * 60, given.rate, given.pace, given.seed)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        uvloop.run(soak.run(Path(folder)))
    print(*soak.lines, sep="\n")
    found = soak.tally.breaches.total()
    print(f"{found} breaches" if found else "all as it should be")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
