"""``llm-gateway models scan``: GGUF files without an entry, and entries for them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.models_file import add_entries
from gateway.cli.options import add_json
from gateway.cli.parser import explain
from gateway.cli.scan_table import chosen, show_found
from gateway.cli.which_gateway import add_gateway, remote_client
from gateway.config.load import load_settings

if TYPE_CHECKING:
    from gateway.config.settings import Settings


def add_options(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the arguments and options of the command."""
    parser = actions.add_parser(
        "scan",
        help="find GGUF files, and write entries for them",
    )
    explain(
        parser,
        "Searches llm_storage for GGUF files without an entry in models.json, "
        "tells what each of them is, and writes entries that fit this machine: as"
        " much context as there is memory for, and pictures if there is a "
        "projector next to the model. Existing entries stay as they are; the "
        "previous file is kept as models.json~. With --url it does this on that "
        "gateway's machine.",
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
    add_gateway(parser, again=True)
    parser.add_argument(
        "folder", metavar="FOLDER", nargs="?", type=Path, help="a folder below llm_storage"
    )
    parser.add_argument("--yes", action="store_true", help="add all of them, without asking")
    add_json(parser, "print what was found, write nothing", again=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Return 0 if it is done or there was nothing to do; 1 if a file or folder can't be
    read or written.
    """
    from gateway.cli import models_remote

    if (client := remote_client(args)) is not None:
        return models_remote.scan(client, args)
    return scan_and_write(args.config, args.folder, all_of_them=args.yes, as_json=args.json)


def scan_and_write(
    config: str | None,
    folder: Path | None,
    *,
    all_of_them: bool,
    as_json: bool = False,
    keep: bool = True,
) -> int:
    """Do the same with the arguments given one by one.

    ``keep``: whether the present models.json stays as models.json~.
    """
    from gateway.backends.scan import scan_storage  # what others don't need is imported here
    from gateway.library import read_catalog
    from gateway.models import editing
    from gateway.models.catalog import EMPTY

    settings = load_settings(config).settings
    file, storage = settings.models_file, settings.llm_storage.expanduser()
    before = editing.read(file)
    catalog = read_catalog(file)[0] if before.strip() else EMPTY
    folder = storage if folder is None else folder.expanduser().absolute()
    if not folder.is_dir():
        return _no_folder(folder, settings)
    scanned = scan_storage(settings, catalog, folder)
    found = scanned.as_json()
    if scanned.doubt is not None:
        print(f"warning: {scanned.doubt}", file=sys.stderr)
    if as_json:
        print(json.dumps(found, indent=2))
        return 0
    if not found:
        already = f" but the {scanned.named} that models.json names" if scanned.named else ""
        print(f"no GGUF file below {folder}{already}")
        return 0
    show_found(found)
    entries = {one["name"]: one["entry"] for one in chosen(found, all_of_them=all_of_them)}
    if entries:
        add_entries(file, before, entries, keep=keep)
    return 0


def _no_folder(folder: Path, settings: Settings) -> int:
    if folder == settings.llm_storage.expanduser():
        text = f"there is no folder {folder}: llm_storage in gateway.yaml says where models are"
    else:
        text = f"there is no folder {folder}"
    print(f"error: {text}", file=sys.stderr)
    return 1
