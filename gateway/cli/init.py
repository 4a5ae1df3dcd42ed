"""``llm-gateway init DIR``: a folder with a commented configuration to start from."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from gateway import json_schemas
from gateway.cli import models_scan
from gateway.cli.options import add_config
from gateway.cli.parser import explain
from gateway.config.places import skeleton
from gateway.models.catalog import SCHEMA_KEY
from gateway.private_files import make_folder, write_private

_FILES = ("conf/gateway.yaml", "data/models.json")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options of the command."""
    add_config(parser)
    parser.add_argument(
        "dir",
        type=Path,
        metavar="DIR",
        nargs="?",
        default=Path(),
        help="the folder, made if needed (default: this one)",
    )
    parser.add_argument(
        "--scan",
        metavar="FOLDER",
        nargs="?",
        const="",
        help="write entries for the GGUF files in this folder (default: llm_storage, ~/LLMs), as "
        "`llm-gateway models scan` does",
    )
    parser.add_argument("--yes", action="store_true", help="with --scan: add all, without asking")
    parser.set_defaults(run=run)
    explain(
        parser,
        "Writes a commented configuration into a folder. Existing files stay as they are.",
        examples=["llm-gateway init --scan ~/LLMs", "llm-gateway init ~/gateway"],
    )


def run(args: argparse.Namespace) -> int:
    """Write the files that don't exist yet; nothing is overwritten."""
    root: Path = args.dir
    config = root / _FILES[0]
    had_models = (root / _FILES[1]).exists()
    fresh = not config.exists() and not had_models
    if args.scan and not Path(args.scan).expanduser().is_dir():
        print(f"error: there is no folder {args.scan}", file=sys.stderr)
        return 1
    try:
        for name in _FILES:
            target = root / name
            make_folder(target.parent)
            if target.exists():
                print(f"kept   {target}")
                continue
            write_private(target, with_schema(name, _content(name, args.scan if fresh else None)))
            print(f"wrote  {target}")
        for target in write_schemas(root):
            print(f"wrote  {target}")
        (root / "data").chmod(0o700)
        make_folder(root / "ssl")
    except BrokenPipeError:
        raise  # of what reads the output, and no file's
    except OSError as error:
        print(f"error: {error.filename or root}: {error.strerror}", file=sys.stderr)
        return 1
    if args.scan is not None:
        print()
        code = models_scan.scan_and_write(
            str(config),
            Path(args.scan) if args.scan else None,
            all_of_them=args.yes,
            keep=had_models,
        )
        if code:
            return code
        if _has_models(root / "data/models.json"):
            _what_now(config, "Now")
        else:
            chosen = _chosen(config)
            print(f"\nmodels.json names no model yet: `llm-gateway models scan{chosen}` adds some")
    else:
        _what_now(config, "Edit them, then")
    return 0


def _has_models(file: Path) -> bool:
    try:
        return bool(json.loads(file.read_bytes()).keys() - {SCHEMA_KEY})
    except (OSError, ValueError):  # `serve` will say what is wrong with it
        return True


def _chosen(config: Path) -> str:
    # It is found from where it is.
    return "" if config == Path(_FILES[0]) else f" --config {shlex.quote(str(config))}"


def _what_now(config: Path, when: str) -> None:
    chosen = _chosen(config)
    print(f"\n{when}: llm-gateway serve{chosen}")
    print(f"And in another terminal: llm-gateway chat{chosen}")


def write_schemas(root: Path) -> Iterator[Path]:
    """Write this version's schemas, by which editors complete and check the files.

    Yields each file that is written. Raises ``OSError``.
    """
    for name, beside in json_schemas.FILES.items():
        target, schema = root / beside, json_schemas.read(name)
        if not target.exists() or target.read_bytes() != schema:
            write_private(target, schema)
            yield target


def with_schema(name: str, content: bytes) -> bytes:
    """Return ``content`` of a new file, like ``conf/gateway.yaml``, with a line that names
    its schema.
    """
    schema = Path(json_schemas.FILES[Path(name).with_suffix(".json").name]).name
    text = content.decode()
    if name.endswith(".json"):
        line = f'  "{SCHEMA_KEY}": "{schema}"'
        return text.replace("{\n", f"{{\n{line},\n" if '"' in text else f"{{\n{line}\n", 1).encode()
    # As the language server of YAML reads it, which VS Code, Zed, Neovim and others use.
    return f"# yaml-language-server: $schema={schema}\n{text}".encode()


def _content(name: str, scan: str | None) -> bytes:
    """Return the first content of a new file. ``scan``: the folder that is scanned, if any."""
    content = skeleton(name).read_bytes()
    if scan is None:
        return content
    if name.endswith(".json"):
        return b"{\n}\n"  # what is found, and no demo model
    if not scan:
        return content
    storage = json.dumps(str(Path(scan).expanduser().absolute()))  # JSON's texts are YAML's
    line = re.compile(r"^#? ?llm_storage:.*$", re.MULTILINE)
    return line.sub(lambda _: f"llm_storage: {storage}", content.decode(), count=1).encode()
