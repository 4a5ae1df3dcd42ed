"""Checks the files that an entry of models.json names for faults that would fail a load."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from gateway.errors import LoadFailed
from gateway.models.gguf_header import BadGguf, Header, read_extent
from gateway.models.local_model import LocalModel
from gateway.models.paths import SPLIT, resolve_model_path
from gateway.spelling import did_you_mean


class Fault(NamedTuple):
    """A fault of one file. ``sure``: a load fails of it; else it may."""

    key: str
    value: str
    message: str
    sure: bool = True


class Kind(Enum):
    """The kind of a file."""

    MODEL = "a model"
    PROJECTOR = "a multimodal projector"
    ADAPTER = "a LoRA adapter"
    GGUF = "a GGUF file"
    TEXT = "a text"
    FOLDER = "a folder"


#: Arguments of llama-server that name files. Several are separated by commas, and a scale may
#: follow each behind a colon.
_ARGUMENTS: Mapping[str, Kind] = MappingProxyType(
    {
        "--lora": Kind.ADAPTER,
        "--lora-scaled": Kind.ADAPTER,
        "--control-vector": Kind.GGUF,
        "--control-vector-scaled": Kind.GGUF,
        "--mmproj": Kind.PROJECTOR,
        "-mm": Kind.PROJECTOR,
        "--model-draft": Kind.MODEL,
        "-md": Kind.MODEL,
        "--spec-draft-model": Kind.MODEL,
        "--model-vocoder": Kind.MODEL,
        "-mv": Kind.MODEL,
        "--grammar-file": Kind.TEXT,
        "--json-schema-file": Kind.TEXT,
        "-jf": Kind.TEXT,
        "--chat-template-file": Kind.TEXT,
        "--slot-save-path": Kind.FOLDER,
    }
)
#: The similarity of file names that differ by a typing error; their extensions are the same anyway.
_ALIKE = 0.85
#: The beginnings of files that people mistake for GGUF files, and what they are.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        "is a pointer of Git LFS and not the file itself: get it with `git lfs pull`",
    ),
    (b"<", "is a web page: the address it was downloaded from leads to a page, not to the file"),
    (b"PK\x03\x04", "is a ZIP archive (a PyTorch model, perhaps), not a GGUF file"),
    (b"lmgg", "has the format before GGUF, which llama.cpp no longer reads"),
    (b"fmgg", "has the format before GGUF, which llama.cpp no longer reads"),
    (b"tjgg", "has the format before GGUF, which llama.cpp no longer reads"),
)


def faults(spec: LocalModel, llm_storage: Path) -> Iterator[Fault]:
    """Yield everything wrong with the files of a local model. Blocks; never raises ``OSError``."""
    for key, reference, kind in (
        ("params.model", spec.params.model, Kind.MODEL),
        ("params.grammarFile", spec.params.grammar_file, Kind.TEXT),
        ("mmproj", spec.mmproj, Kind.PROJECTOR),
        ("draftModel", spec.draft_model, Kind.MODEL),
        ("params.promptFile", spec.params.prompt_file, Kind.TEXT),
    ):
        if not reference:
            continue
        try:
            path = resolve_model_path(reference, llm_storage)
            message = wrong_with(path, kind)
        except LoadFailed as error:
            message = error.detail or error.message
        if message is not None:
            # A prompt file has no effect any more.
            yield Fault(key, reference, message, sure=key != "params.promptFile")
    yield from _faults_of_arguments(spec)


def _faults_of_arguments(spec: LocalModel) -> Iterator[Fault]:
    for argument, following in pairwise((*spec.extra_args, "")):
        flag, equals, value = argument.partition("=")
        kind = _ARGUMENTS.get(flag.replace("_", "-"))
        if kind is None:
            continue
        for name in (value if equals else following).split(","):
            text = re.sub(r":[-+.\d]+$", "", name)
            path = Path(text)
            if not text:
                yield Fault("extraArgs", flag, f"is followed by no name of {kind.value}")
            elif text.startswith("~"):
                message = "~ means nothing to llama-server: write the whole path"
                yield Fault("extraArgs", f"{flag} {text}", message)
            elif (message_ := wrong_with(path, kind)) is not None:
                if not path.is_absolute():
                    message_ += " (a path from the folder that the gateway is started in)"
                yield Fault("extraArgs", f"{flag} {text}", message_, sure=path.is_absolute())


def wrong_with(path: Path, kind: Kind) -> str | None:
    """Return what is wrong with the file at ``path``, or ``None``."""
    try:
        if kind is Kind.FOLDER:
            return None if path.is_dir() else f"the folder {path} does not exist"
        if path.is_dir():
            return _is_folder(path)
        if not path.exists():
            return _does_not_exist(path)
        if not path.is_file():
            return f"{path} is no file"
        if path.stat().st_size == 0:
            return f"the file {path} is empty"
        if kind is Kind.TEXT:
            path.read_bytes().decode("utf-8-sig")
            return None
        return _wrong_gguf(path, kind)
    except UnicodeDecodeError:
        return f"the file {path} is no text (UTF-8)"
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        return f"the file {path} cannot be read: {reason}"


def _is_folder(path: Path) -> str:
    inside = sorted(file.name for file in path.glob("*.gguf"))
    name = f": name the file in it, like {inside[0]}" if inside else ", and no GGUF file is in it"
    return f"{path} is a folder{name}"


def _does_not_exist(path: Path) -> str:
    folder = path.parent
    if folder.is_dir():
        meant = did_you_mean(path.name, _names_in(folder), alike=_ALIKE)
        return f"the file {path} does not exist{meant}"
    while not folder.parent.is_dir():
        folder = folder.parent
    meant = did_you_mean(folder.name, _names_in(folder.parent), alike=_ALIKE)
    return f"the file {path} does not exist: there is no folder {folder}{meant}"


def _names_in(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def _wrong_gguf(path: Path, kind: Kind) -> str | None:
    if (message := _not_whole(path)) is not None:
        return message
    header = read_once(path)[0]
    if (message := _wrong_kind(path, header, kind)) is not None:
        return message
    return _wrong_parts(path, header)


def read_once(path: Path) -> tuple[Header, int]:
    """Do the same as :func:`gateway.models.gguf_header.read_extent`, once for an unchanged file."""
    status = path.stat()
    return _read(path, status.st_mtime_ns, status.st_size)


@lru_cache(256)
def _read(path: Path, _modified: int, _size: int) -> tuple[Header, int]:
    return read_extent(path)


def _not_whole(path: Path) -> str | None:
    with path.open("rb") as file:
        start = file.read(512)
    if not start.startswith(b"GGUF"):
        return f"the file {path} {_what_else(start)}"
    try:
        needed = read_once(path)[1]
    except BadGguf as error:
        return f"the file {path} cannot be loaded: {error}"
    size = path.stat().st_size
    if size < needed:
        return (
            f"the file {path} is cut off, its download did not finish: it has {size:,} bytes of "
            f"{needed:,}"
        )
    return None


def _what_else(start: bytes) -> str:
    for beginning, what in _OTHERS:
        if start.lstrip().startswith(beginning):
            return what
    if start[8:9] == b"{":
        return "is in the safetensors format: llama.cpp reads GGUF files"
    try:
        if start[:400].decode("utf-8").isprintable() or b"\n" in start:
            return "is a text, not a GGUF file"
    except UnicodeDecodeError:
        pass
    return "is not a GGUF file: it does not begin with GGUF"


def kind_of(header: Header) -> Kind:
    """Return what a GGUF file is for, as its header says."""
    if header.values.get("general.architecture") == "clip":  # of before there were types
        return Kind.PROJECTOR
    kinds = {"adapter": Kind.ADAPTER, "mmproj": Kind.PROJECTOR}
    return kinds.get(str(header.values.get("general.type")), Kind.MODEL)


def _wrong_kind(path: Path, header: Header, kind: Kind) -> str | None:
    found = kind_of(header)
    if kind is Kind.GGUF or found is kind:
        return None
    place = {
        Kind.PROJECTOR: ", which the key mmproj is for",
        Kind.ADAPTER: ', which "extraArgs": ["--lora", FILE] is for',
    }.get(found, "")
    return f"the file {path} is {found.value}{place}, not {kind.value}"


def _wrong_parts(path: Path, header: Header) -> str | None:
    """Return what is wrong with the other parts of a split file; llama.cpp finds them by their
    names.
    """
    count = header.values.get("split.count")
    name = SPLIT.fullmatch(path.name)
    if name is None:
        if isinstance(count, int) and count > 1:
            return (
                f"the file {path} is one of {count} parts, which llama.cpp finds by their names: "
                f"it must be called NAME-00001-of-{count:05}.gguf, as it was"
            )
        return None
    stem, number, total = name[1], int(name[2]), int(name[3])
    if number != 1:
        return f"the file {path} is part {number} of {total}: name the first, part 00001"
    if isinstance(count, int) and count > 0 and count != total:
        return f"the file {path} says that it is one of {count} parts, its name of {total}"
    here = set(_names_in(path.parent))
    parts = [f"{stem}-{part:05}-of-{total:05}.gguf" for part in range(2, min(total, 10_000) + 1)]
    if missing := [str(n) for n, part in enumerate(parts, 2) if part not in here]:
        more = f" and {len(missing) - 9} more" if len(missing) > 9 else ""
        return f"the file {path} is part 1 of {total}; missing: {', '.join(missing[:9])}{more}"
    return next(filter(None, (_not_whole(path.with_name(part)) for part in parts)), None)
