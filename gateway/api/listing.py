"""The models, each personality among them as a virtual model, for OpenAI's and router clients.

Both have the same shape, so one list serves both: OpenAI's fields, and beside them ``status``,
``aliases``, ``architecture`` and ``meta`` as in router mode (llama.cpp's README, "Using multiple
models"), and ``context_size``, ``capabilities``, ``personality`` and ``personalities`` of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import orjson
from aiohttp import web

from gateway.api.app_keys import LIBRARY, SCHEDULER
from gateway.api.classic import json_response
from gateway.api.request_context import CONTEXT
from gateway.api.route import counts
from gateway.backends.backend import Backend, State
from gateway.backends.facts import Headers, Stamp, context_of
from gateway.backends.options import tags
from gateway.backends.scheduler import Scheduler
from gateway.errors import GatewayError, ModelNotFound
from gateway.models.catalog import ModelSpec
from gateway.scope import Scope
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
#: How llama.cpp names a build (its common/build-info), and one without a repository.
_BUILD = re.compile(r"b\d+-\w+")
_NO_BUILD = "b0-unknown"


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
        self._build = _NO_BUILD
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

    async def build(self, scheduler: Scheduler) -> str:
        """The build of llama.cpp that runs here, or did last, as it calls itself."""
        running = (scheduler.backend(name) for name in scheduler.loaded())
        own = [b for b in running if b is not None and b.state in _UP and not b.spec.url]
        if own:
            await self._ask(own[0])
        return self._build

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
        self._build = _build_in(props) or self._build
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


@counts(False)
async def openai_models(request: web.Request) -> web.Response:
    """GET /v1/models: OpenAI's list (reference, Models), sorted by id."""
    library = request.app[LIBRARY]
    await library.refresh()
    library.check()
    return json_response({"object": "list", "data": await objects(request)})


async def objects(request: web.Request) -> list[dict[str, Any]]:
    """The models of that list, as ``models.json`` was when it was last looked at."""
    listed = (entry for entry in visible(request) if not _unlisted(*entry[1:]))
    return await _objects(request, sorted(listed, key=lambda entry: entry[0]))


@counts(False)
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
    library, principal = request.app[LIBRARY], request[CONTEXT].principal
    for name, spec, personality in library.resolver.virtual_names():
        if principal.models is not None and spec.name not in principal.models:
            continue
        allowed = principal.personalities
        if personality is None or allowed is None or personality in allowed:
            yield name, spec, personality


def _unlisted(spec: ModelSpec, personality: str | None) -> bool:
    """Whether it is kept out of lists, by models.json; who knows its name may use it."""
    if personality is None:
        return spec.meta.unlisted
    return spec.meta.unlisted or spec.personalities[personality].unlisted


async def _objects(
    request: web.Request, names: list[tuple[str, ModelSpec, str | None]]
) -> list[dict[str, Any]]:
    scheduler, created = request.app[SCHEDULER], request.app[LIBRARY].created
    specs = {spec.name: spec for _, spec, _ in names}
    details = await request.app[DETAILS].of_all(specs.values(), scheduler)
    backends = {name: scheduler.backend(name) for name in specs}
    allowed = request[CONTEXT].principal.personalities
    return [
        {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "llm-gateway",
            "status": _status(backends[spec.name]),
            **_described(spec, details[spec.name]),
            "personalities": [
                label
                for label, one in spec.personalities.items()
                if not one.unlisted and (allowed is None or label in allowed)
            ],
            **_elsewhere(backends[spec.name], which=request[CONTEXT].principal.may(Scope.ADMIN)),
            **(_virtual(spec, personality) if personality else {}),
        }
        for name, spec, personality in names
    ]


def _virtual(spec: ModelSpec, label: str) -> dict[str, Any]:
    """Of a personality as a model: what it is one of, and what is said of it."""
    personality, display = spec.personalities[label], spec.meta.display_name
    return {
        "personality": label,
        "parent": spec.name,
        **({"description": personality.description} if personality.description else {}),
        **({"name": f"{display} ({label})"} if display else {}),
    }


def _elsewhere(backend: Backend | None, *, which: bool) -> dict[str, Any]:
    """Return that a model is on other servers, if it is; with ``which`` also on which, and how."""
    if backend is None or not backend.servers:
        return {}
    return {"remote": True, **({"servers": backend.servers} if which else {})}


def _status(backend: Backend | None) -> dict[str, Any]:
    value = status_of(backend)
    return {"value": value, **({"failed": True} if value == "failed" else {})}


def _described(spec: ModelSpec, details: dict[str, Any]) -> dict[str, Any]:
    """What is known of a model: from its llama-server, its file, models.json, in this order."""
    modalities = ["text", "image"] if spec.mmproj else ["text"]
    described = {
        "aliases": list(spec.aliases),
        "tags": tags(spec),
        "context_size": spec.params.ctx_size or None,
        "architecture": {"input_modalities": modalities, "output_modalities": ["text"]},
        **details,
        **({"description": spec.description} if spec.description else {}),
        **({"name": spec.meta.display_name} if spec.meta.display_name else {}),
    }
    if spec.meta.capabilities is not None:
        return {**described, "capabilities": list(spec.meta.capabilities)}
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
