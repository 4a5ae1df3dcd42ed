"""Proposes an entry of models.json for a file that has none, to fit this machine. Blocks.

As much context as was trained, or the half of it, or a quarter, as there is memory for; of what
doesn't fit the GPUs as many layers as do. It is a beginning that works, to be changed by hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from gateway.backends.estimate import Estimate, estimate
from gateway.backends.machine import Machine
from gateway.models.catalog import parse_entry
from gateway.models.local_model import LocalModel
from gateway.models.storage import Found, Task, base_name

#: The most tokens of context that are proposed in RAM: a CPU takes many minutes to read more.
_IN_RAM: Final = 32_768
#: Tokens of context below which fewer layers on the GPU are better than less context.
_LEAST: Final = 8192
#: The share of a machine's memory that one model is proposed to take, so that it loads with a
#: desktop beside it.
SHARE: Final = 0.9
#: How many texts a model for embeddings or rerank reads at once, and the most tokens of a text.
_READERS_AT_ONCE: Final = 4
_READ_AT_MOST: Final = 8192
#: The context of a model whose header doesn't tell it: llama.cpp's former default.
_UNKNOWN: Final = 4096


class Proposal(NamedTuple):
    """A proposed ``entry`` of models.json. ``memory``: bytes, of which ``ram`` are RAM beside a
    GPU. ``doubt``: why it may not work as it is.
    """

    name: str
    entry: dict[str, Any]
    found: Found
    memory: int
    doubt: str | None = None


def propose(
    found: Iterable[Found],
    machine: Machine,
    llm_storage: Path,
    taken: Container[str],
    *,
    budget: int | None = None,
) -> Iterator[Proposal]:
    """Yield a proposal for each model in ``found`` that can be loaded.

    ``taken``: names not to use; ``budget``: bytes that models may take, if not all there are.
    """
    if budget is None:
        budget = machine.budget
    models = [one for one in found if one.problem is None and one.task not in _NO_MODELS]
    names = _names(models, taken)
    for one, name in zip(models, names, strict=True):
        yield _proposal(one, name, machine, llm_storage, budget)


_NO_MODELS: Final = (None, Task.PROJECTOR, Task.ADAPTER)


def _proposal(
    found: Found, name: str, machine: Machine, llm_storage: Path, budget: int
) -> Proposal:
    room = int(budget * SHARE)
    entry: dict[str, Any] = {"params": {"model": found.reference}}
    if found.task in (Task.EMBEDDING, Task.RERANK):
        _reads(entry, found)
        needs = _needs(name, entry, machine, llm_storage)
    else:
        if found.projector is not None:
            entry["mmproj"] = found.projector
        needs = _fitted(name, entry, found, room, machine, llm_storage)
    doubt = None
    if needs.total > room:
        where = "its GPUs" if machine.gpu else "this machine"
        doubt = f"it needs {_size(needs.total)}, and {where} has {_size(budget)}"
    elif needs.ram and machine.ram is not None and needs.ram > machine.ram.budget:
        doubt = f"it needs {_size(needs.ram)} of RAM beside the GPU"
    elif found.task is Task.EMBEDDING and not found.pooled:
        doubt = (
            "the file names no pooling: embeddings need it in extraArgs, like "
            '["--pooling", "mean"]; which one is right, its maker says'
        )
    return Proposal(name, entry, found, needs.total + needs.ram, doubt)


def _reads(entry: dict[str, Any], found: Found) -> None:
    """Set what a model for embeddings or rerank needs: its longest text must fit into one batch."""
    longest = min(found.trained or _UNKNOWN, _READ_AT_MOST)
    entry["params"]["ctxSize"] = longest * _READERS_AT_ONCE
    entry["params"]["batchSize"] = longest
    entry["extraArgs"] = ["--ubatch-size", str(longest)]
    entry["parallel"] = _READERS_AT_ONCE
    entry["embeddings" if found.task is Task.EMBEDDING else "reranking"] = True


def _fitted(
    name: str, entry: dict[str, Any], found: Found, room: int, machine: Machine, storage: Path
) -> Estimate:
    """Give ``entry`` the context and the layers that fit in ``room`` bytes."""
    params = entry["params"]
    layers = (found.layers or 0) + 1  # the output layer is one more
    most = found.trained or _UNKNOWN
    if not machine.gpu:
        most = min(most, _IN_RAM)
    sizes = [most]
    while sizes[-1] // 2 >= _LEAST:
        sizes.append(sizes[-1] // 2)
    if machine.gpu and found.layers:
        params["gpuLayers"] = layers
    needs = Estimate(0, 0, False)
    for size in sizes:
        params["ctxSize"] = size
        needs = _needs(name, entry, machine, storage)
        if needs.total <= room:
            return _for_two(name, entry, needs, room, machine, storage)
    if machine.gpu and found.layers:
        fits, over = 0, layers
        while over - fits > 1:
            params["gpuLayers"] = middle = (fits + over) // 2
            if _needs(name, entry, machine, storage).total <= room:
                fits = middle
            else:
                over = middle
        params["gpuLayers"] = fits
        return _needs(name, entry, machine, storage)
    if sizes[-1] > _UNKNOWN:
        params["ctxSize"] = _UNKNOWN
        needs = _needs(name, entry, machine, storage)
    return needs


def _for_two(
    name: str, entry: dict[str, Any], needs: Estimate, room: int, machine: Machine, storage: Path
) -> Estimate:
    """Let ``entry`` have two slots with the whole context each, if a GPU has room for both. Returns
    its needs.
    """
    if not machine.gpu:
        return needs
    size = entry["params"]["ctxSize"]
    entry["parallel"], entry["params"]["ctxSize"] = 2, 2 * size
    both = _needs(name, entry, machine, storage)
    if both.total <= room // 2:
        return both
    del entry["parallel"]
    entry["params"]["ctxSize"] = size
    return needs


def _needs(name: str, entry: dict[str, Any], machine: Machine, storage: Path) -> Estimate:
    spec = parse_entry(name, entry)
    assert isinstance(spec, LocalModel)
    return estimate(spec, storage, gpu=machine.gpu)


def _names(models: list[Found], taken: Container[str]) -> list[str]:
    """Return one for each: its file's, without the quantisation where that tells them apart."""
    short = [_printable(base_name(one.file)) for one in models]
    alike = Counter(short)
    names: dict[str, None] = {}
    #: The next number to try after each name, so that a thousand equal names take a thousand tries.
    numbers: dict[str, int] = {}
    for one, name in zip(models, short, strict=True):
        if alike[name] > 1 or name in taken:
            name = f"{name}-{one.quantisation}" if one.quantisation else _printable(one.file.stem)
        start = name
        while name in taken or name in names:
            numbers[start] = numbers.get(start, 1) + 1
            name = f"{start}-{numbers[start]}"
        names[name] = None
    return list(names)


def _printable(name: str) -> str:
    """Return ``name`` as models.json accepts it: files may have other names."""
    return "".join(one if one.isprintable() else "_" for one in name).strip() or "model"


def _size(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
