"""How much memory each model needs, as the scheduler asks: set, measured, else estimated.

In this order: ``memory`` of its entry in models.json; what it took when it was last loaded,
kept in the store under a fingerprint of all that changes it; an estimate from its files.

How it is used. The scheduler, whose decisions must not wait, asks :meth:`Needs.known` (no I/O).
For ``None`` it awaits :meth:`Needs.need_of`, which looks in a thread, before it decides about a
model that is wanted. When a model has become ready, :meth:`Needs.measure` learns what it took.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.backends.command import model_files
from gateway.backends.estimate import estimate, split_parts
from gateway.backends.usage import memory_used
from gateway.catalog import ModelSpec
from gateway.errors import GatewayError, LoadFailed

_log = logging.getLogger(__name__)

Remember = Callable[[str, int], Awaitable[None]]


class Source(enum.StrEnum):
    """Where a number comes from, in words for reports."""

    SET = "models.json"
    MEASURED = "measured"
    ESTIMATED = "estimated"  # from the header of the model
    GUESSED = "guessed"  # from the size of its file alone


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a model takes, of the GPUs' memory where there is a GPU, else of RAM."""

    size: int
    source: Source
    beside: int = 0  # in RAM, beside what is on GPUs
    #: Of both, what it takes for sure: it is refused only for want of that.
    least: int = 0
    least_beside: int = 0


#: How much of a size that was set, or measured at another time, a model takes for sure.
_SURE = 0.9


class Needs:
    """What is known about the memory of models. For one event loop.

    ``measured`` is ``Store.known_memory()``, ``remember`` is ``Store.remember_memory``.
    """

    def __init__(
        self,
        llm_storage: Path,
        measured: Mapping[str, int],
        remember: Remember,
        *,
        gpu: bool = False,
    ) -> None:
        self._llm_storage = llm_storage
        self._gpu = gpu
        self._measured = dict(measured)
        self._remember = remember
        self._estimates: dict[str, Need] = {}
        self._cache: dict[str, tuple[tuple[object, ...], Need]] = {}

    @property
    def gpu(self) -> bool:
        """Whether the needs are of GPUs' memory. May change: a GPU may go, or come."""
        return self._gpu

    @gpu.setter
    def gpu(self, gpu: bool) -> None:
        if gpu is not self._gpu:
            self._gpu = gpu
            self._cache.clear()

    def known(self, spec: ModelSpec) -> Need | None:
        """The need of ``spec`` without looking anywhere, ``None`` if that takes a look."""
        if spec.memory is not None:
            return _as_set(spec.memory)
        identity, need = self._cache.get(spec.name, ((), None))
        return need if identity == spec.process_identity() else None

    async def need_of(self, spec: ModelSpec) -> Need:
        """The need of ``spec`` with its files as they are now; :meth:`known` from then on.

        Cheap to ask again whenever the model is wanted: only a changed file is read anew.
        """
        if spec.memory is None:
            try:
                need = await asyncio.to_thread(self._look, spec)
            except Exception:  # whatever is odd about its files, its load will tell
                _log.exception("the memory that %s needs cannot be told", spec.name)
                need = Need(0, Source.GUESSED)
            self._cache[spec.name] = (spec.process_identity(), need)
        else:
            need = _as_set(spec.memory)
        return need

    def _look(self, spec: ModelSpec) -> Need:
        gpu = self._gpu
        key = fingerprint(spec, self._llm_storage, gpu=gpu)
        if key not in self._estimates:
            found = estimate(spec, self._llm_storage, gpu=gpu)
            source = Source.ESTIMATED if found.from_header else Source.GUESSED
            self._estimates[key] = Need(
                found.total, source, found.beside, found.least, found.least_beside
            )
        need = self._estimates[key]
        if (size := self._measured.get(key)) is not None:
            return _as_measured(size, need)
        return need

    async def measure(self, spec: ModelSpec, group: int) -> Need | None:
        """Learn what the child of ``spec``, whose process group is ``group``, has taken.

        To be called when it has just become ready: later, a cache of old prompts would be in
        it, which llama-server lets grow by gigabytes. ``None`` where it cannot be seen.
        """
        key, size = await asyncio.to_thread(self._weigh, spec, group)
        if size is None:
            return None
        need = _as_measured(size, self._estimates.get(key))
        self._measured[key] = size
        self._cache[spec.name] = (spec.process_identity(), need)
        _log.info("model %s takes %.1f MiB", spec.name, size / 2**20)
        try:
            await self._remember(key, size)
        except GatewayError as error:  # it can be measured again
            _log.warning("the memory of %s is not kept: %s", spec.name, error.message)
        return need

    def _weigh(self, spec: ModelSpec, group: int) -> tuple[str, int | None]:
        gpu = self._gpu
        key = fingerprint(spec, self._llm_storage, gpu=gpu)
        used = memory_used(group, gpu=gpu)
        if used is not None and not gpu:
            # RAM counts when it is touched, and nothing has been computed yet. A GPU's buffers
            # are there in full from the start.
            used += estimate(spec, self._llm_storage, gpu=gpu).compute
        return key, used


def _as_set(size: int) -> Need:
    return Need(size, Source.SET, least=int(size * _SURE))


def _as_measured(size: int, estimated: Need | None) -> Need:
    least = int(size * _SURE)
    if estimated is None or not estimated.size:
        return Need(size, Source.MEASURED, least=least)
    # It took what there was: mapped weights as far as there was room, a context that was fitted in.
    least = min(least, estimated.least)
    return Need(size, Source.MEASURED, estimated.beside, least, estimated.least_beside)


def fingerprint(spec: ModelSpec, llm_storage: Path, *, gpu: bool) -> str:
    """A hash over the files of a model and the settings that change how much memory it takes.

    Blocking. Any of ``extraArgs`` and ``env`` may be such a setting, so all are in it.
    """
    try:
        files = model_files(spec, llm_storage)
    except LoadFailed:
        files = {}
    seen = [
        (key, str(part), *_version(part))
        for key, file in sorted(files.items())
        for part in split_parts(file)
    ]
    params = spec.params
    settings = {
        "gpu": gpu,
        "files": seen,
        "ctxSize": params.ctx_size,
        "gpuLayers": params.gpu_layers,
        "batchSize": params.batch_size,
        "noMmap": params.no_mmap,
        "mlock": params.mlock,
        "parallel": spec.parallel,
        "embeddings": spec.embeddings,
        "reranking": spec.reranking,
        "extraArgs": spec.extra_args,
        "env": sorted(spec.env.items()),
    }
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()


def _version(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except (OSError, ValueError):  # ValueError: a NUL in it
        return (0, 0)
    return (status.st_size, status.st_mtime_ns)
