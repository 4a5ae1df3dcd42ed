"""Finds what a repository of the hub has for llama-server, from the list of its files. No I/O.

The files of one quantisation belong together: one, or the parts of a split model, wherever in the
repository they lie. Projectors stand apart. Whatever names a repository gives its files, none
leads out of the folder that they are put into.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from gateway.errors import BadRequest, NotFound
from gateway.models.paths import SPLIT
from gateway.models.quantisation import QUANTISATION
from gateway.plurals import counted
from gateway.spelling import did_you_mean

#: The pattern of owners and repositories (the hub's client, ``validate_repo_id``); no hidden folder
#: matches.
_NAME: Final = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_REVISION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_SHOWN: Final = 100
#: GGUF files that are no models.
_NO_MODEL: Final = re.compile(r"(?:^|[-._])(?:imatrix|vocab)(?:[-._]|$)", re.IGNORECASE)
_PROJECTOR: Final = re.compile(r"(?:^|[-._])mm-?proj(?:ector)?(?:[-._]|$)", re.IGNORECASE)
#: The most bytes of a part of a path, including what is added while a file is incomplete.
_LONGEST: Final = 200
#: The default choices: at 4 bits a model is hardly worse, and a quarter of its size. Otherwise the
#: largest below, else the smallest above.
_PREFERRED: Final = (
    "Q4_K_M",
    "UD-Q4_K_XL",
    "Q4_K_L",
    "Q4_K_S",
    "MXFP4",
    "MXFP4_MOE",
    "IQ4_XS",
    "IQ4_NL",
    "Q4_0",
    "Q4_1",
)
_PROJECTORS: Final = ("F16", "BF16", "Q8_0", "F32")


class Reference(NamedTuple):
    """``OWNER/REPO[:QUANT]``, as people name what they want."""

    owner: str
    name: str
    quantisation: str | None = None

    @property
    def repository(self) -> str:
        """``OWNER/REPO``."""
        return f"{self.owner}/{self.name}"

    def __str__(self) -> str:
        """Return the reference as it was given."""
        return self.repository + (f":{self.quantisation}" if self.quantisation else "")


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file. ``path``: in the repository, safe below any folder; ``size``: bytes.

    ``sha256`` is that of a large file (Git LFS, Xet), ``blob`` the id of a small one in Git.
    """

    path: str
    size: int
    sha256: str | None = None
    blob: str | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """One quantisation of one model. ``label``: by which it is chosen; ``files``: in their order.

    ``missing``: how many parts of a split model the repository lacks.
    """

    label: str
    quantisation: str | None
    name: str
    files: tuple[HubFile, ...]
    missing: int = 0

    @property
    def size(self) -> int:
        """The bytes of all its files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Repository:
    """``commit``: the state of the repository that all of this is of.

    ``gated``: its owner has to let one in; ``left_out``: files with names that can't be used.
    """

    id: str
    commit: str
    variants: tuple[Variant, ...]
    projectors: tuple[HubFile, ...] = ()
    gated: bool = False
    left_out: int = 0

    def projector_for(self, variant: Variant) -> HubFile | None:
        """Return the best of those that belong to a model of this name: as good as F32, at half of
        it.
        """
        if not self.projectors:
            return None
        wanted = variant.name.lower()
        names = {one.name.lower() for one in self.variants}

        def fits(file: HubFile) -> bool:
            stem = _PROJECTOR.sub("-", _stem(file.path))
            about = base_name_of(stem).strip("-._").lower()
            alike = bool(about) and (wanted.startswith(about) or about.startswith(wanted))
            return alike or len(names) == 1

        def rank(file: HubFile) -> tuple[int, int, str]:
            quantisation = (_quantisation(file.path) or "").upper()
            place = _PROJECTORS.index(quantisation) if quantisation in _PROJECTORS else 9
            return place, file.size, file.path

        return min(filter(fits, self.projectors), key=rank, default=None)


def parse_reference(text: str) -> Reference:
    """Parse ``OWNER/REPO[:QUANT]``. Raises :class:`BadRequest`."""
    path, _, quantisation = text.partition(":")
    owner, _, name = path.partition("/")
    if not _NAME.fullmatch(owner) or not _NAME.fullmatch(name):
        raise BadRequest(
            f"{text[:_SHOWN]!r} must be OWNER/REPO or OWNER/REPO:QUANT, like "
            "unsloth/Qwen3-4B-GGUF:Q4_K_M",
            param="model",
        )
    right = 1 <= len(quantisation) <= _LONGEST and quantisation.isprintable()
    if ":" in text and not right:
        raise BadRequest(
            "behind the colon stands a quantisation, like Q4_K_M, or the name of a file",
            param="model",
        )
    return Reference(owner, name, quantisation or None)


def check_revision(text: str) -> str:
    """Return a branch, tag or commit. Raises :class:`BadRequest`."""
    if not _REVISION.fullmatch(text) or ".." in text:
        raise BadRequest(
            f"the revision {text[:_SHOWN]!r} must be a branch, a tag or a commit", param="revision"
        )
    return text


def safe_path(path: str) -> str | None:
    """Return ``path`` if it is safe below a folder of ours, else ``None``."""
    parts = path.split("/")
    for part in parts:
        if (
            part.startswith(".")  # `..` and what `models scan` doesn't see
            or not part.strip()
            or "\\" in part
            or ":" in part  # drives, and streams of NTFS
            or not part.isprintable()
            or len(part.encode()) > _LONGEST
        ):
            return None
    return "/".join(parts) if len(parts) <= 8 else None


def repository(
    name: str, commit: str, files: Iterable[HubFile], *, gated: bool = False
) -> Repository:
    """Return what is of use in a list of files; everything but GGUF is passed over."""
    groups: defaultdict[tuple[str, str], list[HubFile]] = defaultdict(list)
    projectors: list[HubFile] = []
    left_out = 0
    for file in sorted(files, key=lambda one: one.path):
        if not file.path.lower().endswith(".gguf"):
            continue
        if safe_path(file.path) is None:
            left_out += 1
            continue
        stem = _stem(file.path)
        if _PROJECTOR.search(stem):
            projectors.append(file)
        elif not _NO_MODEL.search(stem):
            split = SPLIT.fullmatch(PurePosixPath(file.path).name)
            folder = str(PurePosixPath(file.path).parent)
            key = f"{split[1]} of {split[3]}" if split is not None else file.path
            groups[folder, key].append(file)
    variants = _labelled([_variant(group) for group in groups.values()])
    return Repository(name, commit, variants, tuple(projectors), gated, left_out)


def choose(repository: Repository, wanted: str) -> Variant:
    """Return the variant that ``wanted`` names: a quantisation, or (the end of) a file's name.

    Raises :class:`NotFound` with what there is, :class:`BadRequest` where several are meant, or
    where it has parts missing.
    """
    text = wanted.lower().removesuffix(".gguf")
    for names in (_labels, _quantisations, _files):
        found = [one for one in repository.variants if text in names(one)]
        if len(found) > 1:
            which = ", ".join(one.label for one in found[:10])
            raise BadRequest(
                f"{repository.id} has several models with {wanted!r}: name one of {which}",
                param="model",
            )
        if found:
            return complete(found[0], repository)
    labels = [one.label for one in repository.variants]
    meant = did_you_mean(wanted, labels)
    there = f"; there are: {', '.join(labels[:40])}" if labels and not meant else ""
    raise NotFound(f"{repository.id} has no {wanted[:_SHOWN]!r}{meant}{there}", param="model")


def complete(variant: Variant, repository: Repository) -> Variant:
    """Return ``variant``. Raises :class:`BadRequest` if the repository lacks a part of it."""
    if variant.missing:
        raise BadRequest(
            f"{repository.id} lacks {counted(variant.missing, 'part')} of {variant.label}: "
            "choose another",
            param="model",
        )
    return variant


def recommended(repository: Repository, fits: Callable[[Variant], bool]) -> Variant | None:
    """Return what to take if nobody says; ``None`` where nothing fits."""
    fitting = [one for one in repository.variants if not one.missing and fits(one)]
    rank = {quantisation: place for place, quantisation in enumerate(_PREFERRED)}
    preferred = [one for one in fitting if (one.quantisation or "") in rank]
    if preferred:
        return min(preferred, key=lambda one: (rank[one.quantisation or ""], -one.size))
    sizes = [one.size for one in repository.variants if (one.quantisation or "") in rank]
    below = [one for one in fitting if not sizes or one.size <= min(sizes)]
    if sizes and below:
        return max(below, key=lambda one: one.size)
    return min(fitting, key=lambda one: (_bits(one), one.size), default=None)


# --- names of files --------------------------------------------------------------------------


def base_name_of(stem: str) -> str:
    """Return the name of a model without its quantisation; ``""`` where there is nothing else."""
    return QUANTISATION.sub("", f"-{stem}").strip("-._")


def _stem(path: str) -> str:
    name = PurePosixPath(path).name
    split = SPLIT.fullmatch(name)
    return split[1] if split is not None else name[: -len(".gguf")]


def _quantisation(path: str) -> str | None:
    """Return the quantisation by the name of the file, else by that of its folder."""
    for text in (_stem(path), PurePosixPath(path).parent.name):
        if match := QUANTISATION.search(f"-{text}"):
            return match[1].upper()
    return None


def _variant(files: list[HubFile]) -> Variant:
    first = PurePosixPath(files[0].path)
    split = SPLIT.fullmatch(first.name)
    missing = int(split[3]) - len(files) if split is not None else 0
    stem = _stem(files[0].path)
    name = base_name_of(stem) or stem
    quantisation = _quantisation(files[0].path)
    return Variant(quantisation or stem, quantisation, name, tuple(files), missing)


def _labelled(variants: list[Variant]) -> tuple[Variant, ...]:
    """Return the variants by size, labelled by file names where a quantisation occurs twice."""
    labels = Counter(one.label for one in variants)
    stems = Counter(_stem(one.files[0].path) for one in variants)

    def label(one: Variant) -> str:
        if labels[one.label] == 1:
            return one.label
        path = one.files[0].path
        stem = _stem(path)
        return stem if stems[stem] == 1 else f"{PurePosixPath(path).parent}/{stem}"

    labelled = [replace(one, label=label(one)) for one in variants]
    return tuple(sorted(labelled, key=lambda one: (one.size, one.label)))


def _labels(variant: Variant) -> set[str]:
    return {variant.label.lower()}


def _quantisations(variant: Variant) -> set[str]:
    return {variant.quantisation.lower()} if variant.quantisation else set()


def _files(variant: Variant) -> set[str]:
    stem = _stem(variant.files[0].path).lower()
    paths = {file.path.lower()[: -len(".gguf")] for file in variant.files}
    return {stem, *paths, *(PurePosixPath(path).name for path in paths)}


_BITS: Final[Mapping[str, int]] = {"F32": 32, "P32": 32, "F16": 16, "FP16": 16, "BF16": 16}


def _bits(variant: Variant) -> int:
    """Return a rank by the bits of a weight, lowest first: four, then more, then fewer than
    four.
    """
    quantisation = (variant.quantisation or "").upper()
    if quantisation in _BITS:
        return _BITS[quantisation]
    digits = re.search(r"\d+", quantisation)
    bits = int(digits[0]) if digits else 99
    return bits if bits >= 4 else 50 - bits
