"""The quantisations in a repository of the hub as a table, and the choice among them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from gateway.cli.table import print_table
from gateway.cli.terminal import clean, is_terminal
from gateway.errors import GatewayError
from gateway.plurals import counted

T = TypeVar("T")
_FITS: Final = {"yes": "yes", "partly": "in part on the GPU", "no": "no"}


def ask(offer: Mapping[str, Any], take: Callable[[str | int], T]) -> T | None:
    """Return what ``take`` makes of the one that somebody chooses, by its place or by a name.

    ``offer`` is as `pull --json` prints it. ``None``: nobody says, and stderr says how to.
    """
    names = [one["name"] for one in offer["quantisations"]]
    best = next((one["name"] for one in offer["quantisations"] if one["recommended"]), None)
    show(offer)
    if not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        print(
            f"error: name one of them: llm-gateway pull {offer['repository']}:{best or names[0]}"
            + (", or --yes for that" if best is not None else ""),
            file=sys.stderr,
        )
        return None
    default = str(names.index(best) + 1) if best is not None else ""
    while True:
        print()
        try:
            answer = input(f"Fetch which? {f'[{default}] ' if default else ''}").strip() or default
        except EOFError:
            print()
            return None
        try:
            if answer.isdecimal() and 1 <= int(answer[:6]) <= len(names):
                return take(int(answer) - 1)
            if answer and not answer.isdecimal():
                return take(answer)
        except GatewayError as error:
            print(clean(error.message))
            continue
        print(f"a number from 1 to {len(names)}, or a name; Ctrl-C ends it")


def show(offer: Mapping[str, Any]) -> None:
    """Print the quantisations, the smallest first."""
    rows = []
    for number, one in enumerate(offer["quantisations"], 1):
        note = "recommended" if one["recommended"] else ""
        if one["missing"]:
            missing = one["missing"]
            note = f"{counted(missing, 'part')} {'is' if missing == 1 else 'are'} missing"
        elif len(one["files"]) > 1:
            note += f"{', ' if note else ''}{len(one['files'])} parts"
        size = _size(one["download"])
        rows.append((str(number), one["name"], size, _FITS[one["fits"]], note))
    print_table(("", "QUANTISATION", "SIZE", "FITS", ""), rows)
    notes = []
    if any(one["projector"] for one in offer["quantisations"]):
        notes.append("SIZE is with the projector, which pictures need.")
    if offer["shut"]:
        notes.append("It is gated: HF_TOKEN must be a token of an account that was let in.")
    if offer["left_out"]:
        notes.append(f"Left out for names that can't be used: {offer['left_out']}.")
    if not any(one["recommended"] for one in offer["quantisations"]):
        notes.append("Nothing fits the memory of this machine.")
    if notes:
        print("", *notes, sep="\n")


def _size(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
