"""The results of a scan as a table, and the choice among them."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.cli.table import print_table

_WIDEST: Final = 100  # characters of a line of prose
#: Files as `models scan --json` has them.
Files = Sequence[Mapping[str, Any]]


def show_found(found: Files) -> None:
    """Print all of them: those with entries in a table, and remarks on the others."""
    proposed = [one for one in found if one["entry"] is not None]
    if proposed:
        rows = [_row(number, one) for number, one in enumerate(proposed, 1)]
        print_table(("", "MODEL", "WHAT", "SIZE", "CONTEXT", "NEEDS"), rows)
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    notes = [f"{one['name']}: {one['doubt']}" for one in proposed if one["doubt"]]
    used = {one["projector"] for one in proposed}
    for one in found:
        file = one["file"]
        if one["problem"] is not None:
            notes.append(f"{file}: {_without_file(one['problem'], file)}")
        elif one["task"] == "adapter":
            notes.append(f'{file}: is a LoRA adapter: "extraArgs": ["--lora", FILE]')
        elif one["task"] == "projector" and file not in used:
            notes.append(f"{file}: is a projector, and no new model lies beside it")
    if proposed and notes:
        print()
    for note in map(_harmless, notes):
        print(textwrap.fill(note, width, initial_indent="! ", subsequent_indent="  "))


def _without_file(problem: str, file: str) -> str:
    """Return ``the file /home/me/LLMs/FILE is ...`` without the file, which the line starts
    with.
    """
    return re.sub(rf"^the file \S*?{re.escape(file)} ", "it ", problem)


def _harmless(text: str) -> str:
    """Return ``text`` without what a terminal obeys: strangers choose the names of files."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def _row(number: int, one: Mapping[str, Any]) -> tuple[str, ...]:
    entry, name = one["entry"], one["name"]
    slots = entry.get("parallel", 1)
    context = entry["params"].get("ctxSize", 0) // slots
    what = [one["architecture"] or "?", one["quantisation"] or "?"]
    if one["task"] not in (None, "chat", "completion"):
        what.append(one["task"])
    what += [able for able in ("tools", "vision", "audio") if one[able]]
    return (
        f"{number}",
        name if len(name) <= 32 else f"{name[:29]}...",
        _harmless(" ".join(what)),
        _size(one["size"]),
        f"{context:,}" + (f" x{slots}" if slots > 1 else ""),
        _size(one["memory"]),
    )


def _size(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


# --- which -----------------------------------------------------------------------------------


def chosen(found: Files, *, all_of_them: bool) -> Files:
    """Return the files with entries that the user chooses, or all of them."""
    proposed = [one for one in found if one["entry"] is not None]
    if not proposed or all_of_them:
        return proposed
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("\nno model was added, as there is no terminal to ask in: --yes adds them all")
        return []
    while True:
        print()
        try:
            answer = input("Write which into models.json? [all], numbers like 1,3-5, or none: ")
        except EOFError:
            print()
            return []
        try:
            return [proposed[number - 1] for number in numbers(answer, len(proposed))]
        except ValueError as error:
            print(error)


def numbers(answer: str, most: int) -> list[int]:
    """Return the numbers that ``answer`` means: ``1,3-5``, ``all`` or nothing for all, ``none``.

    Raises ``ValueError`` that says what is allowed.
    """
    text = answer.strip().lower()
    if text in ("", "all", "y", "yes"):
        return list(range(1, most + 1))
    if text in ("none", "n", "no", "q"):
        return []
    chosen: set[int] = set()
    for part in text.replace(",", " ").split():
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"{part!r} is no number: all, none, or numbers like 1,3-5")
        span = range(int(first), int(last if dash else first) + 1)
        if not span or span[0] < 1 or span[-1] > most:
            raise ValueError(f"{part!r} is not among 1 to {most}")
        chosen.update(span)
    return sorted(chosen)
