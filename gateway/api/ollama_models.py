"""Ollama's routes about models: lists, and what one of them is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web

from gateway.access.principal import Principal
from gateway.api.choosing import resolve
from gateway.api.listing import Entry, Listing
from gateway.api.ollama import not_found
from gateway.backends.backend import State
from gateway.backends.facts import Headers
from gateway.backends.scheduler import Scheduler
from gateway.errors import BadRequest, ModelNotFound, NotFound
from gateway.http.json_response import json_response
from gateway.http.response import Answer
from gateway.library import Library
from gateway.ollama.models import Shown, listed, running, shown
from gateway.ollama.requests import model_in
from gateway.pipeline.reading import json_body
from gateway.pipeline.request_context import CONTEXT
from gateway.pipeline.route import Routes, Row
from gateway.proxy.ability import lacks
from gateway.scope import Scope

#: The version of Ollama whose API this is: clients look at it to know what they may ask for.
VERSION: Final = "0.21.0"
#: What is not done here -> how it is done.
_ELSEWHERE: Final = {
    "/api/create": "models are made by `llm-gateway models add`, by the page, or by PUT "
    "/admin/models/NAME; system prompts and parameters over a model are its personalities",
    "/api/copy": "another name of a model is one of its `aliases` in models.json",
    "/api/push": "models are not published from here",
}
_BLOBS: Final = "files of models are put below `llm_storage`, or fetched by `llm-gateway pull`"


class OllamaModelHandlers:
    """Lists models, shows one of them, and says what is not done here."""

    def __init__(
        self, library: Library, scheduler: Scheduler, listing: Listing, headers: Headers
    ) -> None:
        self._library = library
        self._scheduler = scheduler
        self._listing = listing
        self._headers = headers

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        ollama = Scope.OLLAMA
        yield Row("GET", "/api/version", self.version, ollama, counts=False, head=True)
        yield Row("GET", "/api/tags", self.tags, ollama, counts=False, head=True)
        yield Row("GET", "/api/ps", self.ps, ollama, counts=False)
        yield Row("POST", "/api/show", self.show, ollama, counts=False)
        for path in _ELSEWHERE:
            yield Row("POST", path, self.elsewhere, Scope.CHAT)
        yield Row("POST", "/api/blobs/{digest}", self.elsewhere, Scope.CHAT, head=True)

    async def version(self, _request: web.Request) -> web.Response:
        """GET /api/version: the version of Ollama whose API is spoken."""
        return json_response({"version": VERSION})

    async def tags(self, request: web.Request) -> web.Response:
        """GET /api/tags: the models, and each personality as a tag of its model."""
        library = self._library
        await library.refresh()
        library.check()
        principal = request[CONTEXT].principal
        entries = self._listing.listed(principal)
        return json_response(
            {"models": [listed(one) for one in await self._all(principal, entries)]}
        )

    async def ps(self, request: web.Request) -> web.Response:
        """GET /api/ps: the models that are loaded, those first that stay longest."""
        principal, scheduler = request[CONTEXT].principal, self._scheduler
        up = {
            one.name: one
            for one in scheduler.status()
            if one.state in (State.READY, State.DRAINING)
        }
        entries = [
            entry
            for entry in self._listing.visible(principal)
            if entry[2] is None and entry[0] in up
        ]
        found = []
        for model in await self._all(principal, entries):
            status = up[model.spec.name]
            left = status.unload_in
            if left is None:  # it stays, or is used
                left = scheduler.ttl(model.spec.name)
            gpus = sum(
                size for name, size in status.memory_on.items() if name.rpartition("/")[2] != "RAM"
            )
            size = status.memory_held if status.memory is None else status.memory
            found.append(running(model, size=size, on_gpus=gpus, unload_in=left))
        found.sort(key=lambda one: str(one["expires_at"]), reverse=True)
        return json_response({"models": found})

    async def show(self, request: web.Request) -> web.Response:
        """POST /api/show ``{model}``: what a model is, and can do."""
        context = request[CONTEXT]
        name = model_in(await json_body(request))
        try:
            target = await resolve(context, {"model": name}, anew=True)
        except ModelNotFound as error:
            raise not_found(name, error) from None
        principal = context.principal
        (model,) = await self._all(principal, [(name, target.spec, None)])
        return json_response(shown(model))

    async def elsewhere(self, request: web.Request) -> Answer:
        """POST /api/create, copy, push, blobs: say how that is done here."""
        path = request.path
        if request.method == "HEAD":
            raise NotFound("there are no blobs here", code="blob_not_found")
        how = _ELSEWHERE.get(path, _BLOBS)
        raise BadRequest(f"{path} of Ollama is not to be had here: {how}", code="route_refused")

    async def _all(self, principal: Principal, entries: Sequence[Entry]) -> list[Shown]:
        """Return what is known of each of ``entries``."""
        entries = list(entries)
        described = await self._listing.described(principal, entries)
        headers = self._headers
        files = {spec.file for _, spec, _ in entries if spec.file}
        read = await asyncio.gather(*map(headers.whole, files))
        known = dict(zip(files, read, strict=True))
        return [
            self._shown(entry, said, known.get(entry[1].file or ""))
            for entry, said in zip(entries, described, strict=True)
        ]

    def _shown(self, entry: Entry, said: dict[str, Any], header: Any) -> Shown:
        name, spec, _ = entry
        facts = self._headers.of(spec)
        return Shown(
            name,
            spec,
            header,
            size=facts.size if facts is not None else 0,
            modified=facts.stamp.modified / 1e9 if facts is not None else self._library.created,
            quantisation=facts.quantisation if facts is not None else None,
            abilities=tuple(said["capabilities"]),
            reads_only=facts is not None and facts.reads_only,
            context=said.get("context_size"),
            lacks=frozenset(lacks(spec)),
        )
