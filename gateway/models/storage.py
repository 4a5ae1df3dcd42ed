"""Scans the GGUF files below ``llm_storage``, and tells what each of them is. Blocks.

A model that is split is one, a projector stands with the models that it belongs to, and what can't
be loaded is there as well, with the reason.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Final

from gateway.models.files import Kind, kind_of, read_once, wrong_with
from gateway.models.gguf_header import BadGguf, Header, Value, is_reader
from gateway.models.paths import SPLIT, split_parts
from gateway.models.quantisation import PART, QUANTISATION, quantisation_of

_THREADS: Final = 4
#: llama.cpp, enum ``llama_pooling_type``.
_RANK: Final = 4
_POOLINGS: Final = (1, 2, 3)
_PROJECTORS_NAME: Final = re.compile(r"[-._]?mm-?proj(?:ector)?[-._]?", re.IGNORECASE)
#: The preferred of several projectors: nearly as good as the full size, in half of the memory.
_BEST: Final = ("F16", "BF16", "Q8_0", "F32")


class Task(Enum):
    """The task of a file."""

    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"
    RERANK = "rerank"
    PROJECTOR = "projector"
    ADAPTER = "adapter"


@dataclass(frozen=True, slots=True)
class Found:
    """A model, or a file that belongs to one. ``reference``: as models.json names it.

    ``size``: bytes of all ``parts``. ``trained``: tokens of context that it was trained with.
    ``problem``: why it can't be loaded; of such a file hardly anything else is known.
    """

    file: Path
    reference: str
    size: int
    parts: int = 1
    task: Task | None = None
    architecture: str | None = None
    label: str | None = None  # general.name
    quantisation: str | None = None
    trained: int | None = None
    layers: int | None = None
    embedding_length: int | None = None
    pooled: bool = False  # the header says how embeddings are made of its output
    template: bool = False
    tools: bool = False
    vision: bool = False
    audio: bool = False
    projector: str | None = None  # the reference of one that lies beside it
    problem: str | None = None

    @property
    def abilities(self) -> tuple[str, ...]:
        """The model's further abilities."""
        can = {"tools": self.tools, "vision": self.vision, "audio": self.audio}
        return tuple(name for name, yes in can.items() if yes)


def scan(folder: Path, *, leave_out: Iterable[Path] = (), root: Path | None = None) -> list[Found]:
    """Return every GGUF file below ``folder``, by folder and name. Raises ``OSError``.

    Models in ``leave_out`` (absolute paths) aren't read. ``root``: ``llm_storage``, if that isn't
    ``folder``.
    """
    folder = folder.expanduser().absolute()
    root = folder if root is None else root.expanduser().absolute()
    known = {_identity(path) for path in leave_out}
    files = [file for file in _first_parts(gguf_files(folder)) if _identity(file) not in known]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="scan") as threads:
        found = list(threads.map(lambda file: look_at(file, root), files))
    return _with_projectors(found)


def look_at(file: Path, root: Path) -> Found:
    """Return what one file is; the first, of several parts. ``root``: ``llm_storage``, made
    absolute.
    """
    reference = _reference(file, root)
    parts = split_parts(file)
    found = Found(file, reference, sum(map(_size, parts)), len(parts))
    if (shown := reference.encode(errors="backslashreplace").decode()) != reference:
        # JSON is UTF-8: no entry could name it.
        return replace(found, reference=shown, problem="its name is no text in UTF-8: rename it")
    problem = wrong_with(file, Kind.GGUF)
    try:
        header = read_once(file)[0]
    except (OSError, BadGguf):
        return replace(found, problem=problem or "it cannot be read")
    found = _described(found, header)
    if found.problem is None and problem is not None:
        found = replace(found, problem=problem)
    return found


def with_projector(found: Found, root: Path) -> Found:
    """Return a model, with the projector that lies beside it."""
    beside = [
        look_at(file, root)
        for file in found.file.parent.glob("*.gguf")
        if file != found.file and "mmproj" in file.name.lower()
    ]
    return next(one for one in _with_projectors([found, *beside]) if one.file == found.file)


# --- files -----------------------------------------------------------------------------------


def gguf_files(root: Path) -> Iterator[Path]:
    """Yield each GGUF file below ``root`` once, however many links lead to it; hidden folders are
    not looked into. Raises ``OSError`` where ``root`` can't be read.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    root.stat()  # raises, where others that can't be read are just left out
    while waiting:
        folder = waiting.pop()
        try:
            if (identity := _identity(folder)) in seen:
                continue  # a link to a folder that it lies in
            seen.add(identity)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue
        below = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = folder / entry.name
            try:
                if entry.is_dir():
                    below.append(path)
                elif entry.name.lower().endswith(".gguf") and entry.is_file():
                    status = entry.stat()
                    if (one := (status.st_dev, status.st_ino)) not in seen:
                        seen.add(one)
                        yield path
            except OSError:  # a link to nowhere
                continue
        waiting += reversed(below)


def _identity(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return status.st_dev, status.st_ino


def _first_parts(files: Iterable[Path]) -> Iterator[Path]:
    """Yield ``files``, but of each split model only the first part found."""
    seen = set()
    for file in files:
        if match := SPLIT.fullmatch(file.name):
            split = (file.parent, match[1], match[3])
            if split in seen:
                continue
            seen.add(split)
        yield file


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _reference(file: Path, root: Path) -> str:
    try:
        return file.relative_to(root).as_posix()
    except ValueError:
        return str(file)


# --- headers ---------------------------------------------------------------------------------


def _described(found: Found, header: Header) -> Found:
    values = header.values
    architecture = _text(values, "general.architecture")
    kind = kind_of(header)
    template = _text(values, "tokenizer.chat_template") or ""
    described = replace(
        found,
        architecture=architecture,
        label=_text(values, "general.name"),
        quantisation=quantisation_of(found.file, values),
        trained=_number(values, f"{architecture}.context_length"),
        layers=_number(values, f"{architecture}.block_count"),
        embedding_length=_number(values, f"{architecture}.embedding_length"),
        pooled=f"{architecture}.pooling_type" in values,
        template=bool(template),
        tools=bool(re.search(r"\btools\b", template)),
    )
    if kind is Kind.PROJECTOR:
        vision = bool(values.get("clip.has_vision_encoder", True))
        audio = bool(values.get("clip.has_audio_encoder", False))
        dimensions = [
            _number(values, f"clip.{of}projection_dim") for of in ("vision.", "audio.", "")
        ]
        return replace(
            described,
            task=Task.PROJECTOR,
            vision=vision,
            audio=audio,
            embedding_length=next(filter(None, dimensions), None),
        )
    if kind is Kind.ADAPTER:
        return replace(described, task=Task.ADAPTER)
    if (general := _text(values, "general.type")) not in (None, "model"):
        return replace(described, problem=f"it is no model (general.type: {general})")
    return replace(described, task=_task(values, architecture, template))


def _task(values: Mapping[str, Value], architecture: str | None, template: str) -> Task:
    pooling = values.get(f"{architecture}.pooling_type")
    if pooling == _RANK:
        return Task.RERANK
    if pooling in _POOLINGS or is_reader(values):
        return Task.EMBEDDING
    return Task.CHAT if template else Task.COMPLETION


def _text(values: Mapping[str, Value], key: str) -> str | None:
    value = values.get(key)
    return value if isinstance(value, str) else None


def _number(values: Mapping[str, Value], key: str) -> int | None:
    value = values.get(key)
    if isinstance(value, tuple):
        value = max(value, default=0)
    return int(value) if isinstance(value, int | float) and value > 0 else None


# --- projectors ------------------------------------------------------------------------------


def _with_projectors(found: list[Found]) -> list[Found]:
    """Return ``found`` with the projector of each model."""
    projectors = defaultdict(list)
    models = defaultdict(set)
    for one in found:
        if one.problem is not None:
            continue
        if one.task is Task.PROJECTOR:
            projectors[one.file.parent].append(one)
        elif one.task is not Task.ADAPTER:
            models[one.file.parent].add(base_name(one.file).lower())
    return [
        _with_one_of(one, projectors[one.file.parent], models[one.file.parent]) for one in found
    ]


def _with_one_of(model: Found, projectors: list[Found], names: set[str]) -> Found:
    if model.problem is not None or model.task not in (Task.CHAT, Task.COMPLETION):
        return model
    name = base_name(model.file).lower()
    fitting = []
    for projector in projectors:
        theirs = projector.embedding_length
        if theirs and model.embedding_length and theirs % model.embedding_length:
            continue  # what it makes of a picture is no input for this model
        about = base_name(Path(_PROJECTORS_NAME.sub("", projector.file.stem))).lower()
        if (about and _alike(name, about)) or len(names) == 1:
            fitting.append(projector)
    if not fitting:
        return model
    order = {quantisation: place for place, quantisation in enumerate(_BEST)}
    best = min(fitting, key=lambda one: (order.get(one.quantisation or "", 9), one.file.name))
    return replace(model, projector=best.reference, vision=best.vision, audio=best.audio)


def base_name(file: Path) -> str:
    """Return the name of a model's file without its part and its quantisation."""
    stem = file.name[:-5] if file.name.lower().endswith(".gguf") else file.name
    return QUANTISATION.sub("", PART.sub("", stem)) or stem


def _alike(model: str, projector: str) -> bool:
    return model.startswith(projector) or projector.startswith(model)
