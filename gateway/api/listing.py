"""The models, each personality among them as a virtual model, for OpenAI's and router clients.

Both have the same shape, so one list serves both: OpenAI's fields, and beside them ``status``,
``aliases``, ``architecture`` and ``meta`` as in router mode (llama.cpp's README, "Using multiple
models"), and ``context_size``, ``capabilities``, ``personality`` and ``personalities`` of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import orjson
from aiohttp import web

from gateway.api.classic import json_response
from gateway.api.context import LIBRARY, SCHEDULER
from gateway.api.visit import VISIT
from gateway.backends.backend import Backend, State
from gateway.backends.facts import Headers, Stamp, context_of
from gateway.backends.scheduler import Scheduler
from gateway.catalog import ModelSpec
from gateway.errors import GatewayError, ModelNotFound
from gateway.spelling import did_you_mean

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


def status_of(backend: Backend | None) -> str:
    """A backend's state as llama-server's router calls it.

    While a process ends it still holds its memory, so it counts as loaded.
    """
    if backend is None:
        return "unloaded"
    if backend.state is State.STOPPED and backend.start_failed:
        return "failed"
    if backend.sleeping and backend.state is State.READY:
        return "sleeping"
    return _STATUS[backend.state]


class _Known(NamedTuple):
    """What a backend said: in which start, as which process, from which file."""

    start: int
    process: tuple[object, ...]
    file: Stamp | None
    details: dict[str, Any]


class Details:
    """What running backends say about themselves, asked once for each start; of others, what
    they said last, else what their files say.
    """

    def __init__(self, headers: Headers) -> None:
        self.headers = headers
        self._known: WeakKeyDictionary[Backend, _Known] = WeakKeyDictionary()

    async def of_all(
        self, specs: Collection[ModelSpec], scheduler: Scheduler
    ) -> dict[str, dict[str, Any]]:
        """For each name ``context_size``, ``architecture`` and ``meta``, as far as known."""
        await self.headers.refresh(specs)
        details, asked = {}, []
        for spec in specs:
            backend = scheduler.backend(spec.name)
            if backend is not None and backend.state in _UP:
                asked.append(backend)
            else:
                details[spec.name] = self._of_file(spec, backend)
        found = await asyncio.gather(*map(self._ask, asked))
        return details | {b.spec.name: it for b, it in zip(asked, found, strict=True)}

    async def _ask(self, backend: Backend) -> dict[str, Any]:
        if backend.spec.url:
            size = backend.context_size
            return {"context_size": size} if size is not None else {}
        known = self._known.get(backend)
        if known is not None and known.start == backend.starts:
            return known.details
        start, spec = backend.starts, backend.spec
        facts = self.headers.of(spec)
        try:
            props, listed = await asyncio.gather(
                _fetch(backend, "/props"), _fetch(backend, "/v1/models")
            )
        except GatewayError:
            return {}  # it is too busy, or going: next time
        details = _details(props, listed)
        file = facts.stamp if facts is not None else None
        self._known[backend] = _Known(start, spec.process_identity(), file, details)
        return details

    def _of_file(self, spec: ModelSpec, backend: Backend | None) -> dict[str, Any]:
        if spec.url or (facts := self.headers.of(spec)) is None:
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


DETAILS = web.AppKey("details", Details)


async def openai_models(request: web.Request) -> web.Response:
    """GET /v1/models: OpenAI's list (reference, Models), sorted by id."""
    library = request.app[LIBRARY]
    await library.refresh()
    library.check()
    names = sorted(visible(request), key=lambda entry: entry[0])
    return json_response({"object": "list", "data": await _objects(request, names)})


async def openai_model(request: web.Request) -> web.Response:
    """GET /v1/models/ID: one of them; ID may hold ``/`` and ``:``, and be an alias."""
    wanted = request.match_info["model"]
    for entry in visible(request):
        if entry[0] == wanted or (entry[2] is None and wanted in entry[1].aliases):
            (item,) = await _objects(request, [entry])
            return json_response({**item, "id": wanted})
    meant = did_you_mean(wanted, (name for name, _, _ in visible(request)))
    raise ModelNotFound(f"there is no model {wanted[:200]!r}{meant}", param="model")


def visible(request: web.Request) -> Iterator[tuple[str, ModelSpec, str | None]]:
    """``(name, spec, personality or None)`` of each model that the request's key may use."""
    library, principal = request.app[LIBRARY], request[VISIT].principal
    for name, spec, personality in library.resolver.virtual_names():
        if principal.models is not None and spec.name not in principal.models:
            continue
        allowed = principal.personalities
        if personality is None or allowed is None or personality in allowed:
            yield name, spec, personality


async def _objects(
    request: web.Request, names: list[tuple[str, ModelSpec, str | None]]
) -> list[dict[str, Any]]:
    scheduler, created = request.app[SCHEDULER], request.app[LIBRARY].created
    specs = {spec.name: spec for _, spec, _ in names}
    details = await request.app[DETAILS].of_all(specs.values(), scheduler)
    backends = {name: scheduler.backend(name) for name in specs}
    allowed = request[VISIT].principal.personalities
    return [
        {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "llm-gateway",
            "status": _status(backends[spec.name]),
            **_described(spec, details[spec.name]),
            "personalities": [p for p in spec.personalities if allowed is None or p in allowed],
            **_elsewhere(backends[spec.name], admin=request[VISIT].principal.admin),
            # A virtual model says what it is one of.
            **({"personality": personality, "parent": spec.name} if personality else {}),
        }
        for name, spec, personality in names
    ]


def _elsewhere(backend: Backend | None, *, admin: bool) -> dict[str, Any]:
    """Of a model that other servers have: that it is one; for administrators, which and how."""
    if backend is None or not backend.servers:
        return {}
    return {"remote": True, **({"servers": backend.servers} if admin else {})}


def _status(backend: Backend | None) -> dict[str, Any]:
    value = status_of(backend)
    return {"value": value, **({"failed": True} if value == "failed" else {})}


def _described(spec: ModelSpec, details: dict[str, Any]) -> dict[str, Any]:
    """What is known of a model: from its llama-server, its file, models.json, in this order."""
    modalities = ["text", "image"] if spec.mmproj else ["text"]
    described = {
        "aliases": list(spec.aliases),
        "tags": [],
        "context_size": spec.params.ctx_size or None,
        "architecture": {"input_modalities": modalities, "output_modalities": ["text"]},
        **details,
        **({"description": spec.description} if spec.description else {}),
    }
    capabilities = ["rerank"] if spec.reranking else ["embeddings"] if spec.embeddings else []
    if not spec.reranking:
        capabilities = ["chat", "completion", *capabilities]
    for kind, name in (("image", "vision"), ("audio", "audio")):
        if kind in described["architecture"]["input_modalities"]:
            capabilities.append(name)
    return {**described, "capabilities": capabilities}


async def _fetch(backend: Backend, path: str) -> Any:
    fetched = await backend.pool.fetch("GET", path, timeout=_DETAILS_TIMEOUT)
    try:
        return orjson.loads(fetched.body) if fetched.status == 200 else None
    except ValueError:
        return None


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
