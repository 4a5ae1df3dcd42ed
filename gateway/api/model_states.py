"""The state of each model, and the log of its llama-server."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aiohttp import web

from gateway.backends.facts import Headers
from gateway.backends.machine_report import machine_report, nodes_report
from gateway.backends.scheduler import Scheduler
from gateway.entries import Entries
from gateway.errors import ModelNotFound
from gateway.http.json_response import json_response
from gateway.library import Library
from gateway.models.model import Model
from gateway.pipeline.events import endless
from gateway.pipeline.route import Routes, Row
from gateway.scope import Scope
from gateway.spelling import did_you_mean

if TYPE_CHECKING:
    from gateway.conversations.keeper import Conversations


class ModelStateHandlers:
    """Shows the state of models, and the logs of their llama-servers."""

    def __init__(
        self,
        library: Library,
        scheduler: Scheduler,
        headers: Headers,
        entries: Entries,
        conversations: Conversations | None = None,
    ) -> None:
        self._library = library
        self._scheduler = scheduler
        self._headers = headers
        self._entries = entries
        self._conversations = conversations

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        return (
            Row("GET", "/admin/models", self.models, Scope.ADMIN),
            Row("GET", "/admin/models/{model:.+}/log", self.model_log, Scope.ADMIN),
        )

    async def models(self, request: web.Request) -> web.Response:
        """GET /admin/models: each model with its state, load, restarts and last error.

        And what it is: its file, and what of its entry says when it is in memory. ``models_file``:
        whether entries can be changed over HTTP.
        """
        library, headers = self._library, self._headers
        await headers.refresh(library.catalog.models.values())
        data = []
        for status in self._scheduler.status():
            spec = library.catalog.models.get(status.name)
            spared = prompt_cache(self._conversations, status.name)
            data.append({**asdict(status), **_what_it_is(spec, headers), **spared})
        common = library.choices.common
        active = common._asdict() if common else None
        return json_response(
            {
                "models": data,
                "active": active,
                "models_file": (await self._entries.editable())._asdict(),
                "models_file_error": library.broken,
                "machine": await machine_report(self._scheduler),
                "nodes": nodes_report(self._scheduler.environment.nodes),
            }
        )

    async def model_log(self, request: web.Request) -> web.StreamResponse:
        """GET /admin/models/NAME/log: what its llama-server wrote, then what it writes, as events.

        Each line is one ``data:``, of several copies with the machine that it is from.
        ``?follow=false``: what there is, as ``{"lines": [...]}``.
        """
        name = request.match_info["model"]
        backend = self._scheduler.backend(name)
        if backend is None:
            meant = did_you_mean(name, self._library.catalog.names)
            raise ModelNotFound(f"there is no model {name[:200]!r}{meant}", param="model")
        if request.query.get("follow", "").lower() in ("false", "0"):
            return json_response({"lines": backend.shown_log.tail()})
        return await endless(request, backend.shown_log.follow(backlog=1000))


def prompt_cache(conversations: Conversations | None, model: str) -> dict[str, Any]:
    """Return what is told of the saved conversations of ``model``; without a cache nothing is."""
    if conversations is None:
        return {}
    if (counts := conversations.counts(model)) is None:
        return {"prompt_cache": None}
    return {"prompt_cache": {**counts._asdict(), "nodes": conversations.on_nodes(model)}}


def _what_it_is(spec: Model | None, headers: Headers) -> dict[str, Any]:
    if spec is None:  # its entry has gone while it is drained
        return {"personalities": []}
    facts = headers.of(spec)
    return {
        "display_name": spec.meta.display_name,
        "unlisted": spec.meta.unlisted,
        "capabilities": spec.meta.capabilities,
        "personalities": list(spec.personalities),
        "virtual_models": spec.virtual_models,
        "file": spec.file,
        "size": facts.size if facts is not None else None,
        "quantisation": facts.quantisation if facts is not None else None,
        "trained_context": facts.trained if facts is not None else None,
        "description": spec.description,
        "pinned": spec.pinned,
        "preload": spec.preload,
        "remote": not spec.ours,
    }
