"""Details of models: from running llama-servers, from their last answers, or from model files."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Collection
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import orjson

from gateway.backends.backend import Backend, State
from gateway.backends.facts import Headers, Stamp, context_of
from gateway.backends.scheduler import Scheduler
from gateway.errors import GatewayError
from gateway.models.local_model import LocalModel
from gateway.models.model import Model
from gateway.upstream import UpstreamRequest

_STATUS = {
    State.STOPPED: "unloaded",
    State.STARTING: "loading",
    State.READY: "loaded",
    State.DRAINING: "loaded",
    State.STOPPING: "loaded",
    State.BACKOFF: "failed",
    State.FAILED: "failed",
}
_UP = (State.READY, State.DRAINING)
_DETAILS_TIMEOUT = 2.0  # seconds
#: The name of a build of llama.cpp (its common/build-info), and of a build without a repository.
_BUILD = re.compile(r"b\d+-\w+")
_NO_BUILD = "b0-unknown"


def status_of(backend: Backend | None) -> str:
    """Return a backend's state as llama-server's router calls it.

    A process that is ending still holds its memory, so it counts as loaded.
    """
    if backend is None:
        return "unloaded"
    if backend.state is State.STOPPED and backend.start_failed:
        return "failed"
    if backend.sleeping and backend.state is State.READY:
        return "sleeping"
    return _STATUS[backend.state]


class _KnownDetails(NamedTuple):
    """The details that a backend told, with the start, process and file that they are true for."""

    start: int
    process: tuple[object, ...]
    file: Stamp | None
    details: dict[str, Any]


class ModelDetails:
    """Details of models: what running backends say of themselves, asked once for each start; of
    others, what they said last, else what their files say.
    """

    def __init__(self, headers: Headers, scheduler: Scheduler) -> None:
        self._headers = headers
        self._scheduler = scheduler
        self._build = _NO_BUILD
        self._known: WeakKeyDictionary[Backend, _KnownDetails] = WeakKeyDictionary()

    async def of_all(self, specs: Collection[Model]) -> dict[str, dict[str, Any]]:
        """Return by name ``context_size``, ``architecture`` and ``meta``, as far as known."""
        await self._headers.refresh(specs)
        details, asked = {}, []
        for spec in specs:
            backend = self._scheduler.backend(spec.name)
            if backend is not None and backend.state in _UP:
                asked.append(backend)
            else:
                details[spec.name] = self._of_file(spec, backend)
        found = await asyncio.gather(*map(self._ask, asked))
        return details | {b.spec.name: it for b, it in zip(asked, found, strict=True)}

    async def build(self) -> str:
        """Return the build of llama.cpp that runs here, or ran last, as it calls itself."""
        running = map(self._scheduler.backend, self._scheduler.loaded())
        own = [b for b in running if b is not None and b.state in _UP and b.spec.ours]
        if own:
            await self._ask(own[0])
        return self._build

    async def _ask(self, backend: Backend) -> dict[str, Any]:
        if not backend.spec.ours:
            size = backend.context_size
            return {"context_size": size} if size is not None else {}
        known = self._known.get(backend)
        if known is not None and known.start == backend.starts:
            return known.details
        start, spec = backend.starts, backend.spec
        facts = self._headers.of(spec)
        try:
            props, listed = await asyncio.gather(
                _fetch(backend, "/props"), _fetch(backend, "/v1/models")
            )
        except GatewayError:
            return {}  # it is too busy, or going: next time
        self._build = _build_in(props) or self._build
        details = _details(props, listed)
        file = facts.stamp if facts is not None else None
        self._known[backend] = _KnownDetails(start, spec.process_identity(), file, details)
        return details

    def _of_file(self, spec: Model, backend: Backend | None) -> dict[str, Any]:
        if not isinstance(spec, LocalModel) or (facts := self._headers.of(spec)) is None:
            return {}
        known = self._known.get(backend) if backend is not None else None
        if (
            known is not None
            and known.file == facts.stamp
            and known.process == spec.process_identity()
        ):
            return known.details
        size = context_of(spec, facts.trained)
        found: dict[str, Any] = {} if size is None else {"context_size": size}
        meta = {"n_ctx": size, "n_ctx_train": facts.trained}
        return {**found, "meta": {key: value for key, value in meta.items() if value is not None}}


async def _fetch(backend: Backend, path: str) -> Any:
    fetched = await backend.pool.fetch(UpstreamRequest("GET", path), timeout=_DETAILS_TIMEOUT)
    try:
        return orjson.loads(fetched.body) if fetched.status == 200 else None
    except ValueError:
        return None


def _build_in(props: Any) -> str | None:
    build = props.get("build_info") if isinstance(props, dict) else None
    found = _BUILD.match(build) if isinstance(build, str) else None
    return found[0] if found is not None else None


def _details(props: Any, listed: Any) -> dict[str, Any]:
    details: dict[str, Any] = {}
    with contextlib.suppress(LookupError, TypeError, ValueError):
        details["context_size"] = int(props["default_generation_settings"]["n_ctx"])
    with contextlib.suppress(LookupError, TypeError):
        entry = listed["data"][0]
        if isinstance(entry["meta"], dict):
            details["meta"] = entry["meta"]
        if isinstance(entry["architecture"]["input_modalities"], list):
            details["architecture"] = entry["architecture"]
    return details
