"""Resolves names of files in models.json: paths, and files inside installed Python packages."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from gateway.errors import LoadFailed
from gateway.models.catalog import Catalog
from gateway.models.model import Model

_PACKAGE = "package:"
#: The name of one part of a split model: its beginning, its number, how many there are.
SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)


def resolve_model_path(reference: str, llm_storage: Path) -> Path:
    """Return the path that ``reference`` of models.json means; relative ones are below
    ``llm_storage``.

    Backslashes separate folders, as in files written on Windows. ``package:NAME/FILE`` is a file
    inside an installed Python package, which is found and not imported. Raises
    :class:`LoadFailed`.
    """
    if reference.startswith(_PACKAGE):
        return _package_file(reference)
    if re.match(r"[A-Za-z]:[\\/]", reference) and os.name != "nt":
        raise _unusable(
            f"{reference!r} is a path on a Windows drive: copy the file below llm_storage "
            f"({llm_storage}) and name it relative to that folder"
        )
    path = Path(reference.replace("\\", "/"))
    try:
        # "./~/x" is a folder called ~, as in a shell; a Path has forgotten the "./".
        path = llm_storage.expanduser() / (path.expanduser() if reference.startswith("~") else path)
    except RuntimeError as error:  # ~someone, and no such user
        raise _unusable(f"{reference!r}: {error}") from None
    if re.search(r"[\b\f\n\r\t]", reference) and not path.exists():  # "LLMs\new.gguf" in JSON
        raise _unusable(
            f"{reference!r} holds a line break or the like: in JSON a backslash is written "
            "twice, as in D:\\\\LLMs\\\\new.gguf"
        )
    return path


def files_of(spec: Model, llm_storage: Path) -> Iterator[Path]:
    """Yield the GGUF files of one model, whether they are there or not: its own, and those beside
    it.
    """
    for reference in spec.files:
        try:
            yield resolve_model_path(reference, llm_storage)
        except LoadFailed:
            continue


def named_files(catalog: Catalog, llm_storage: Path) -> Iterator[Path]:
    """Yield the files that models.json names, projectors and draft models too."""
    for spec in catalog.models.values():
        yield from files_of(spec, llm_storage)


def _unusable(reason: str) -> LoadFailed:
    return LoadFailed("A file that models.json names cannot be used.", detail=reason)


def _package_file(reference: str) -> Path:
    name, _, file = reference.removeprefix(_PACKAGE).replace("\\", "/").partition("/")
    name, inside = name.replace("-", "_"), PurePosixPath(file)
    if not name.isidentifier() or not inside.parts:
        raise _unusable(f"{reference!r} must have the form package:NAME/FILE")
    if inside.is_absolute() or ".." in inside.parts:
        raise _unusable(f"{reference!r} must be a file inside the package {name}")
    folders = package_folders(name)
    if not folders:
        raise _unusable(
            f"{reference!r}: the Python package {name} is not installed; get it with: "
            f"pip install --no-deps {name.replace('_', '-')}"
        )
    for folder in folders:
        if (folder / inside).exists():
            return folder / inside
    raise _unusable(f"{reference!r}: the Python package {name} has no file {file}")


def package_folders(name: str) -> list[Path]:
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # ValueError: a module in sys.modules without a spec
        return []
    return [Path(folder) for folder in (found and found.submodule_search_locations) or ()]


def split_parts(file: Path) -> list[Path]:
    """Return every part of a model split as ``NAME-00001-of-00003.gguf``; else just the file."""
    match = SPLIT.fullmatch(file.name)
    if match is None:
        return [file]
    stem, count = match[1], match[3]
    # As many as there are, not as the name says: it may say 99999.
    parts = {
        part
        for part in file.parent.glob("*.gguf")
        if (other := SPLIT.fullmatch(part.name)) and (other[1], other[3]) == (stem, count)
    }
    return [file, *sorted(parts - {file})]
