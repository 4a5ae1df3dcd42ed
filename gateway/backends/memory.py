"""The memory that each model needs, for the scheduler: set, measured, else estimated.

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
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.backends.command import model_files
from gateway.backends.estimate import estimate
from gateway.backends.tuning import Tuning, is_open, read_model, scant, usual
from gateway.backends.usage import memory_used
from gateway.errors import GatewayError, LoadFailed
from gateway.models.local_model import LocalModel
from gateway.models.paths import split_parts

_log = logging.getLogger(__name__)

Remember = Callable[[str, int], Awaitable[None]]


class Source(enum.StrEnum):
    """The source of a number, in words for reports."""

    SET = "models.json"
    MEASURED = "measured"
    ESTIMATED = "estimated"  # from the header of the model
    GUESSED = "guessed"  # from the size of its file alone


@dataclass(frozen=True, slots=True)
class Need:
    """The bytes that a model takes of the GPUs' memory, or of RAM where there is no GPU."""

    size: int
    source: Source
    ram: int = 0  # in RAM, beside what is on GPUs
    #: The certain part of both: a model is refused only for lack of that.
    least: int = 0
    least_ram: int = 0
    #: The part of ``size`` that is enough if some layers may stay in RAM; None: they may not.
    scant: int | None = None


#: The share of a size, set or measured earlier, that a model certainly takes.
_SURE = 0.9


class Needs:
    """The known memory needs of models. For one event loop.

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
        self.llm_storage = llm_storage
        self._gpu = gpu
        self._measured = dict(measured)
        self._remember = remember
        self._estimates: dict[str, Need] = {}
        self._cache: dict[str, tuple[tuple[object, ...], Need]] = {}

    @property
    def gpu(self) -> bool:
        """Whether the needs are of GPU memory. It changes when a GPU goes or comes."""
        return self._gpu

    @gpu.setter
    def gpu(self, gpu: bool) -> None:
        if gpu is not self._gpu:
            self._gpu = gpu
            self._cache.clear()

    def known(self, spec: LocalModel) -> Need | None:
        """Return the need of ``spec`` without looking anywhere, ``None`` if that takes a look."""
        if spec.memory is not None:
            return _as_set(spec.memory)
        identity, need = self._cache.get(spec.name, ((), None))
        return need if identity == spec.process_identity() else None

    async def need_of(self, spec: LocalModel) -> Need:
        """Return the need of ``spec`` with its files as they are now; :meth:`known` from then on.

        Cheap to ask again whenever the model is wanted: only a changed file is read anew.
        """
        if spec.memory is None:
            try:
                need = await asyncio.to_thread(self._estimate, spec)
            except Exception:  # its load will report what is wrong with its files
                _log.exception("the memory that %s needs cannot be told", spec.name)
                need = Need(0, Source.GUESSED)
            self._cache[spec.name] = (spec.process_identity(), need)
        else:
            need = _as_set(spec.memory)
        return need

    def _estimate(self, spec: LocalModel) -> Need:
        gpu, storage = self._gpu, self.llm_storage
        model = read_model(spec, storage) if is_open(spec, gpu=gpu) else None
        asked = usual(spec, model)
        key = fingerprint(asked, storage, gpu=gpu)
        if key not in self._estimates:
            found = estimate(asked, storage, gpu=gpu)
            source = Source.ESTIMATED if found.from_header else Source.GUESSED
            need = Need(found.total, source, found.ram, found.least, found.least_ram)
            if asked is not spec:  # for sure, it takes none of the context that may be chosen
                sure = estimate(spec, storage, gpu=gpu)
                need = replace(need, least=sure.least, least_ram=sure.least_ram)
            if gpu and (thin := scant(spec, model)) is not None:
                need = replace(need, scant=estimate(thin, storage, gpu=gpu).total)
            self._estimates[key] = need
        need = self._estimates[key]
        if (size := self._measured.get(key)) is not None:
            return _as_measured(size, need)
        return need

    async def measure(
        self, spec: LocalModel, group: int, tuning: Tuning | None = None
    ) -> Need | None:
        """Learn what the child of ``spec``, whose process group is ``group``, has taken.

        ``tuning``: what was chosen for it. Then it is what the model took this time: the next
        time, more or less may be chosen.

        Call it when the model has just become ready: later, the measurement would include a cache
        of old prompts, which may grow by gigabytes. ``None`` where it can't be measured.
        """
        started = spec if tuning is None else tuning.apply(spec)
        key, size = await asyncio.to_thread(self._weigh, started, group)
        if size is None:
            return None
        need = _as_measured(size, self._estimates.get(key))
        if tuning is not None and tuning.by != "gateway":
            return need  # how many of its layers are where is not known for sure
        self._measured[key] = size
        if tuning is None:
            self._cache[spec.name] = (spec.process_identity(), need)
        _log.info("model %s takes %.1f MiB", spec.name, size / 2**20)
        try:
            await self._remember(key, size)
        except GatewayError as error:  # it can be measured again
            _log.warning("the memory of %s is not kept: %s", spec.name, error.message)
        return need

    def _weigh(self, spec: LocalModel, group: int) -> tuple[str, int | None]:
        gpu = self._gpu
        key = fingerprint(spec, self.llm_storage, gpu=gpu)
        used = memory_used(group, gpu=gpu)
        if used is not None and not gpu:
            # RAM counts when it is touched, and nothing has been computed yet. A GPU's buffers
            # are there in full from the start.
            used += estimate(spec, self.llm_storage, gpu=gpu).compute
        return key, used


def _as_set(size: int) -> Need:
    return Need(size, Source.SET, least=int(size * _SURE))


def _as_measured(size: int, estimated: Need | None) -> Need:
    least = int(size * _SURE)
    if estimated is None or not estimated.size:
        return Need(size, Source.MEASURED, least=least)
    # It took what was free: as many mapped weights, and as much context, as fit.
    least = min(least, estimated.least)
    return replace(estimated, size=size, source=Source.MEASURED, least=least)


def fingerprint(spec: LocalModel, llm_storage: Path, *, gpu: bool) -> str:
    """Return a hash over the files of a model and the settings that change how much memory it
    takes.

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
