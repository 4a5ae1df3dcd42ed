"""``llm-gateway models scan``: files that nobody has written an entry for, and entries for them."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.models_elsewhere import only_here
from gateway.cli.models_file import add_entries
from gateway.cli.options import add_config, add_json
from gateway.cli.parser import explain
from gateway.cli.table import print_table
from gateway.config import load_settings

if TYPE_CHECKING:
    from gateway.backends.proposal import Proposal
    from gateway.config import Settings
    from gateway.models.storage import Found

_WIDEST = 100  # characters of a line of prose


def add_options(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """What the command takes."""
    parser = actions.add_parser(
        "scan",
        help="find GGUF files, and write entries for them",
    )
    explain(
        parser,
        "Looks through llm_storage for GGUF files that no entry of models.json names, "
        "says what each of them is, and writes entries that fit this machine: as much context as "
        "there is memory for, pictures where a projector lies beside the model. What stands in "
        "models.json stays as it is; the file before is kept as models.json~.",
        examples=["llm-gateway models scan --yes"],
        fields={
            "[].file": "as `params.model` has it: relative to llm_storage if it is below that",
            "[].size": "bytes, of all its parts",
            "[].parts": "number of files of a split model; 1: it is one file",
            "[].task": "chat, completion, embedding, rerank, projector, adapter, ...; or null",
            "[].architecture": "as the header says; or null",
            "[].quantisation": "like Q4_K_M; or null",
            "[].context": "tokens it was trained with; or null",
            "[].template": "whether it has a chat template",
            "[].tools": "whether its template takes tools",
            "[].vision": "whether it sees, by itself or with its projector",
            "[].audio": "whether it hears, by itself or with its projector",
            "[].projector": "file of the projector beside it; or null",
            "[].problem": "why it can't be used; or null",
            "[].name": "what its entry would be called; null if none is proposed",
            "[].entry": "the entry proposed for models.json; or null",
            "[].memory": "bytes it would take; or null",
            "[].doubt": "what speaks against it; or null",
        },
    )
    add_config(parser, again=True)
    parser.add_argument(
        "folder", metavar="FOLDER", nargs="?", type=Path, help="a folder below llm_storage"
    )
    parser.add_argument("--yes", action="store_true", help="write all of them, without a question")
    add_json(parser, "print what was found, write nothing", again=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0: done, or nothing to do; 1: models.json or the folder can't be read or written."""
    only_here(args)
    return scan_and_write(args.config, args.folder, all_of_them=args.yes, as_json=args.json)


def scan_and_write(
    config: str | None,
    folder: Path | None,
    *,
    all_of_them: bool,
    as_json: bool = False,
    keep: bool = True,
) -> int:
    """The same, for who has the arguments in other words.

    ``keep``: whether models.json as it is now stays as models.json~.
    """
    from gateway.backends.scan import scan_storage  # what others don't need is imported here
    from gateway.catalog import EMPTY
    from gateway.library import read_catalog
    from gateway.models import editing

    settings = load_settings(config).settings
    file, storage = settings.models_file, settings.llm_storage.expanduser()
    before = editing.read(file)
    catalog = read_catalog(file)[0] if before.strip() else EMPTY
    folder = storage if folder is None else folder.expanduser().absolute()
    if not folder.is_dir():
        return _no_folder(folder, settings)
    scanned = scan_storage(settings, catalog, folder)
    found, proposals = scanned.found, scanned.proposals
    if scanned.doubt is not None:
        print(f"warning: {scanned.doubt}", file=sys.stderr)
    if as_json:
        print(json.dumps(scanned.as_json(), indent=2))
        return 0
    if not found:
        already = f" but the {scanned.named} that models.json names" if scanned.named else ""
        print(f"no GGUF file below {folder}{already}")
        return 0
    _show(found, proposals, folder)
    chosen = _choose(proposals, all_of_them=all_of_them)
    if not chosen:
        return 0
    add_entries(file, before, {one.name: one.entry for one in chosen}, keep=keep)
    return 0


def _no_folder(folder: Path, settings: Settings) -> int:
    if folder == settings.llm_storage.expanduser():
        text = f"there is no folder {folder}: llm_storage in gateway.yaml says where models are"
    else:
        text = f"there is no folder {folder}"
    print(f"error: {text}", file=sys.stderr)
    return 1


# --- what is said ----------------------------------------------------------------------------


def _show(found: Sequence[Found], proposals: Sequence[Proposal], folder: Path) -> None:
    if proposals:
        rows = [_row(number, one) for number, one in enumerate(proposals, 1)]
        header = ("", "MODEL", "WHAT", "SIZE", "CONTEXT", "NEEDS")
        print_table(header, rows)
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    notes = [f"{one.name}: {one.doubt}" for one in proposals if one.doubt]
    used = {one.found.projector for one in proposals}
    for one in found:
        if one.problem is not None:
            problem = one.problem.replace(f"the file {one.file} ", "it ", 1)
            notes.append(f"{one.reference}: {problem}")
        elif one.task is not None and one.task.value == "adapter":
            notes.append(f'{one.reference}: is a LoRA adapter: "extraArgs": ["--lora", FILE]')
        elif one.task is not None and one.task.value == "projector" and one.reference not in used:
            notes.append(f"{one.reference}: is a projector, and no new model lies beside it")
    if proposals and notes:
        print()
    for note in map(_harmless, notes):
        print(textwrap.fill(note, width, initial_indent="! ", subsequent_indent="  "))


def _harmless(text: str) -> str:
    """``text`` without what a terminal obeys: files are called as strangers like."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def _row(number: int, one: Proposal) -> tuple[str, ...]:
    found = one.found
    slots = one.entry.get("parallel", 1)
    context = one.entry["params"].get("ctxSize", 0) // slots
    what = [found.architecture or "?", found.quantisation or "?"]
    if found.task is not None and found.task.value not in ("chat", "completion"):
        what.append(found.task.value)
    return (
        f"{number}",
        one.name if len(one.name) <= 32 else f"{one.name[:29]}...",
        _harmless(" ".join((*what, *found.abilities))),
        _size(found.size),
        f"{context:,}" + (f" x{slots}" if slots > 1 else ""),
        _size(one.memory),
    )


def _size(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


# --- what is written -------------------------------------------------------------------------


def _choose(proposals: list[Proposal], *, all_of_them: bool) -> list[Proposal]:
    if not proposals or all_of_them:
        return proposals
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
            return [proposals[number - 1] for number in numbers(answer, len(proposals))]
        except ValueError as error:
            print(error)


def numbers(answer: str, most: int) -> list[int]:
    """The numbers that ``answer`` means: ``1,3-5``, ``all`` or nothing for all, ``none``.

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
