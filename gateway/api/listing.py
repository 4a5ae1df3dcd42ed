"""Lists of models, with each personality as a virtual model, for OpenAI's and router clients.

Both have the same shape, so one list serves both: OpenAI's fields, and beside them ``status``,
``aliases``, ``architecture`` and ``meta`` as in router mode (llama.cpp's README, "Using multiple
models"), and ``context_size``, ``capabilities``, ``personality`` and ``personalities`` of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiohttp import web

from gateway.access.principal import Principal
from gateway.backends.backend import Backend
from gateway.backends.model_details import ModelDetails, status_of
from gateway.backends.scheduler import Scheduler
from gateway.errors import ModelNotFound
from gateway.http.json_response import json_response
from gateway.library import Library
from gateway.models.model import Model
from gateway.pipeline.request_context import CONTEXT
from gateway.pipeline.route import Routes, Row
from gateway.scope import Scope
from gateway.spelling import did_you_mean

#: The name of a model or virtual model, its entry, and its personality if it is a virtual one.
Entry = tuple[str, Model, str | None]


class ListingHandlers:
    """Lists models, and shows one of them."""

    def __init__(self, library: Library, scheduler: Scheduler, listing: Listing) -> None:
        self._library = library
        self._scheduler = scheduler
        self._listing = listing

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        chat = Scope.CHAT
        return (
            Row("GET", "/models", self.models, chat, counts=False),
            Row("GET", "/models/{model:.+}", self.openai_model, chat, counts=False),
            Row("GET", "/v1/models", self.openai_models, chat, counts=False),
            Row("GET", "/v1/models/{model:.+}", self.openai_model, chat, counts=False),
        )

    async def models(self, request: web.Request) -> web.Response:
        """GET /models: the array of names, or the list of objects, as ``GET /v1/models``.

        Objects for who asks for them: ``?format=openai`` (or ``router``), ``?reload=`` as in router
        mode, or one of OpenAI's own clients with a base URL without /v1, which could do nothing
        with an array (they all send ``X-Stainless-Lang``).
        """
        query = request.query
        if (
            query.get("format") in ("openai", "router")
            or "reload" in query
            or "X-Stainless-Lang" in request.headers
        ):
            return await self.openai_models(request)
        return await self._names(request)

    async def _names(self, request: web.Request) -> web.Response:
        """Return the names in models.json; ``?loaded=true``: those that are loaded."""
        library = self._library
        await library.refresh()
        library.check()
        allowed = request[CONTEXT].principal.models
        models = library.catalog.models
        names = [name for name, spec in models.items() if spec.lists(None)]
        if request.query.get("loaded", "").lower() in ("true", "1"):
            gone = {name for name, spec in models.items() if not spec.lists(None)}
            names = [name for name in self._scheduler.loaded() if name not in gone]
        return json_response([name for name in names if allowed is None or name in allowed])

    async def openai_models(self, request: web.Request) -> web.Response:
        """GET /v1/models: OpenAI's list (reference, Models), sorted by id."""
        library = self._library
        await library.refresh()
        library.check()
        return json_response(
            {"object": "list", "data": await self._listing.objects(request[CONTEXT].principal)}
        )

    async def openai_model(self, request: web.Request) -> web.Response:
        """GET /v1/models/ID: one of them; ID may hold ``/`` and ``:``, and be an alias."""
        wanted, principal = request.match_info["model"], request[CONTEXT].principal
        return json_response(await self._listing.named(principal, wanted))


class Listing:
    """Describes models, as far as a principal may know of them."""

    def __init__(self, library: Library, scheduler: Scheduler, details: ModelDetails) -> None:
        self._library = library
        self._scheduler = scheduler
        self._details = details

    async def objects(self, principal: Principal) -> list[dict[str, Any]]:
        """Return the objects of ``GET /v1/models``; ``models.json`` is not read again for it."""
        return await self.described(principal, self.listed(principal))

    async def named(self, principal: Principal, wanted: str) -> dict[str, Any]:
        """Return the object of one of them, which may be in no list; an alias is its ``id``, too.

        Raises :class:`ModelNotFound`.
        """
        for entry in self.visible(principal):
            if entry[0] == wanted or (entry[2] is None and wanted in entry[1].aliases):
                (item,) = await self.described(principal, [entry])
                return {**item, "id": wanted}
        meant = did_you_mean(wanted, (name for name, _, _ in self.listed(principal)))
        raise ModelNotFound(f"there is no model {wanted[:200]!r}{meant}", param="model")

    def listed(self, principal: Principal) -> list[Entry]:
        """Return those that models.json doesn't keep out of lists, sorted by name; whoever knows
        the name of others may use them.
        """
        shown = (entry for entry in self.visible(principal) if entry[1].lists(entry[2]))
        return sorted(shown, key=lambda entry: entry[0])

    def visible(self, principal: Principal) -> Iterator[Entry]:
        """Yield each model and virtual model that ``principal`` may use."""
        library = self._library
        for name, spec, personality in library.resolver.virtual_names():
            if principal.models is not None and spec.name not in principal.models:
                continue
            allowed = principal.personalities
            if personality is None or allowed is None or personality in allowed:
                yield name, spec, personality

    async def described(self, principal: Principal, names: list[Entry]) -> list[dict[str, Any]]:
        """Return the objects of these models, with details of those that run."""
        scheduler, created = self._scheduler, self._library.created
        specs = {spec.name: spec for _, spec, _ in names}
        details = await self._details.of_all(specs.values())
        backends = {name: scheduler.backend(name) for name in specs}
        allowed = principal.personalities
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
                **_remote(backends[spec.name], which=principal.may(Scope.ADMIN)),
                **(_virtual(spec, personality) if personality else {}),
            }
            for name, spec, personality in names
        ]


def _virtual(spec: Model, label: str) -> dict[str, Any]:
    """Return the fields of a virtual model: its personality, its model, and their words."""
    personality, display = spec.personalities[label], spec.meta.display_name
    return {
        "personality": label,
        "parent": spec.name,
        **({"description": personality.description} if personality.description else {}),
        **({"name": f"{display} ({label})"} if display else {}),
    }


def _remote(backend: Backend | None, *, which: bool) -> dict[str, Any]:
    """Return that a model is on other servers, if it is; with ``which`` also on which, and how."""
    if backend is None or not backend.servers:
        return {}
    return {"remote": True, **({"servers": backend.servers} if which else {})}


def _status(backend: Backend | None) -> dict[str, Any]:
    value = status_of(backend)
    return {"value": value, **({"failed": True} if value == "failed" else {})}


def _described(spec: Model, details: dict[str, Any]) -> dict[str, Any]:
    """Return what its llama-server, its file and models.json say of a model, in this order."""
    described = {
        "aliases": list(spec.aliases),
        "tags": spec.tags,
        "context_size": spec.ctx_size or None,
        "architecture": {"input_modalities": spec.modalities, "output_modalities": ["text"]},
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
