"""Facts about a model from its file, without loading it.

Headers are read in threads, few at a time, and again only when the file has changed. Who asks
waits for them a moment, never for a slow disk: what is not known by then is there the next time.
"""

from __future__ import annotations

import asyncio
import re
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gateway.bounded_cache import BoundedCache
from gateway.errors import LoadFailed
from gateway.models.gguf_header import BadGguf, Header, Value, is_reader, read_header
from gateway.models.local_model import LocalModel
from gateway.models.model import Model
from gateway.models.paths import resolve_model_path, split_parts
from gateway.models.quantisation import quantisation_of
from gateway.tasks import spawn

#: Seconds for which a file is assumed to be unchanged.
FRESH = 5.0
#: Seconds to wait for headers, from the moment their reading began.
PATIENCE = 1.0
_THREADS = 4
#: How many whole headers (with chat templates and the like) are kept.
_WHOLE = 64
#: llama.cpp gives each slot a whole number of such pieces.
_PIECE = 256
#: The errors of an unreadable file. ``ValueError``: it is no GGUF, or the path is none (a NUL in
#: it).
_UNREADABLE = (OSError, ValueError, LoadFailed)


class Stamp(NamedTuple):
    """A value that changes when a file is replaced."""

    path: Path
    modified: int
    size: int


class Facts(NamedTuple):
    """The facts from one model file. ``trained``: the tokens of context it was trained with.

    ``reads_only``: it is for embeddings or rerank, and can't write any text. ``size``: bytes, of
    all parts of a split one.
    """

    stamp: Stamp
    trained: int | None
    reads_only: bool
    size: int
    quantisation: str | None


class _KeptHeader(NamedTuple):
    facts: Facts | None  # None: no file, or none that can be read
    looked: float


class Headers:
    """The headers of the files that models.json names, by what stands there."""

    def __init__(self, llm_storage: Path) -> None:
        self._storage = llm_storage
        self._known: dict[str, _KeptHeader] = {}
        self._whole: BoundedCache[Stamp, Header] = BoundedCache(_WHOLE)
        self._reading: asyncio.Task[None] | None = None
        self._began = 0.0

    def of(self, spec: Model) -> Facts | None:
        """Return what is known of a model's file. Looks at no disk: see :meth:`refresh`."""
        known = self._known.get(spec.file or "")
        return known.facts if known is not None else None

    async def refresh(self, specs: Iterable[Model]) -> None:
        """Look at the files that were not looked at for a while, and read those that are new.

        Returns before it is done where that takes long.
        """
        wanted = {spec.file for spec in specs if spec.file}
        for _ in range(2):  # what others are having read may be something else
            if not (stale := self._stale(wanted)):
                return
            if self._reading is None or self._reading.done():
                self._began = time.monotonic()
                self._reading = spawn(self._read_all(stale), name="read headers of models")
            left = self._began + PATIENCE - time.monotonic()
            done, _ = await asyncio.wait((self._reading,), timeout=max(0.0, left))
            if not done:
                return

    def _stale(self, wanted: set[str]) -> list[str]:
        since = time.monotonic() - FRESH
        known = self._known
        return [name for name in wanted if name not in known or known[name].looked < since]

    async def _read_all(self, references: Sequence[str]) -> None:
        parts = [references[start::_THREADS] for start in range(_THREADS)]
        await asyncio.gather(*(asyncio.to_thread(self._look_at, part) for part in parts if part))

    def _look_at(self, references: Sequence[str]) -> None:
        for reference in references:
            before = self._known.get(reference)
            facts = self._read(reference, before.facts if before is not None else None)
            self._known[reference] = _KeptHeader(facts, time.monotonic())

    def _read(self, reference: str, before: Facts | None) -> Facts | None:
        try:
            stamp = _stamp_of(resolve_model_path(reference, self._storage))
            if before is not None and before.stamp == stamp:
                return before
            values = read_header(stamp.path, enough=_has_context, block=2**14).values
        except _UNREADABLE:
            return None
        try:
            size = sum(part.stat().st_size for part in split_parts(stamp.path))
        except OSError:  # one of them has just gone
            size = stamp.size
        quantisation = quantisation_of(stamp.path, values)
        return Facts(stamp, _trained(values), is_reader(values), size, quantisation)

    async def whole(self, reference: str) -> Header | None:
        """Return all that the header of the file ``reference`` says; None if it cannot be read."""
        return await asyncio.to_thread(self._read_whole, reference)

    def _read_whole(self, reference: str) -> Header | None:
        try:
            stamp = _stamp_of(resolve_model_path(reference, self._storage))
            if (header := self._whole.get(stamp)) is None:
                header = read_header(stamp.path)
        except _UNREADABLE:
            return None
        self._whole[stamp] = header
        return header


def context_of(spec: LocalModel, trained: int | None) -> int | None:
    """Return the tokens of context that a request to the model gets; None where a build may differ.

    It is computed as by llama-server: the requested size in whole pieces, divided among the slots
    unless they share it (``--kv-unified``), and no more than the model was trained with. Where no
    size is asked for, builds divide that of the training among several slots, or give it to each.
    What a GPU without room for it makes llama-server do (``--fit``) is known when it has been
    loaded.
    """
    # Not needed until somebody asks for lists.
    from gateway.backends.options import option, shares_context

    texts = (*spec.extra_args, *spec.env)
    if any(re.search(r"context_length|unified.per.slot", text, re.IGNORECASE) for text in texts):
        return None
    variable = "CTX_SIZE" if spec.params.ctx_size is None else ""
    text = option(spec, "-c --ctx-size", variable)
    try:
        asked = int(text) if text is not None else spec.params.ctx_size or 0
    except ValueError:
        return None
    shared = shares_context(spec)
    if asked <= 0:
        return trained if spec.parallel == 1 or shared else None
    size = _whole_pieces(asked)
    if not shared:
        size = _whole_pieces(size // spec.parallel)
    return min(size, trained) if trained else size


def _whole_pieces(tokens: int) -> int:
    return -(-tokens // _PIECE) * _PIECE


def _stamp_of(path: Path) -> Stamp:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
        raise BadGguf("it is no file")
    return Stamp(path, status.st_mtime_ns, status.st_size)


def _has_context(values: Mapping[str, Value]) -> bool:
    return f"{values.get('general.architecture')}.context_length" in values


def _trained(values: Mapping[str, Value]) -> int | None:
    number = values.get(f"{values.get('general.architecture')}.context_length")
    return number if isinstance(number, int) and number > 0 else None
