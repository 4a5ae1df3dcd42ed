"""What an administrator can look at and change in a running gateway."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from aiohttp import web

from gateway.api.admin_models import ENTRIES
from gateway.api.app_keys import GATE, LIBRARY, SCHEDULER
from gateway.api.classic import json_response
from gateway.api.events import endless
from gateway.api.listing import DETAILS
from gateway.api.overview import machine_of
from gateway.api.route import needs
from gateway.backends.facts import Headers
from gateway.errors import ModelNotFound
from gateway.models.catalog import ModelSpec
from gateway.scope import Scope
from gateway.spelling import did_you_mean


@needs(Scope.ADMIN)
async def models(request: web.Request) -> web.Response:
    """GET /admin/models: each model with its state, load, restarts and last error.

    And what it is: its file, and what of its entry says when it is in memory. ``models_file``:
    whether entries can be changed over HTTP.
    """
    library = request.app[LIBRARY]
    headers = request.app[DETAILS].headers
    await headers.refresh(library.catalog.models.values())
    data = []
    for status in request.app[SCHEDULER].status():
        spec = library.catalog.models.get(status.name)
        data.append({**asdict(status), **_what_it_is(spec, headers)})
    common = library.choices.common
    active = common._asdict() if common else None
    return json_response(
        {
            "models": data,
            "active": active,
            "models_file": (await request.app[ENTRIES].editable())._asdict(),
            "models_file_error": library.broken,
            "machine": await machine_of(request.app),
        }
    )


def _what_it_is(spec: ModelSpec | None, headers: Headers) -> dict[str, Any]:
    if spec is None:  # its entry has gone while it is drained
        return {"personalities": []}
    facts = headers.of(spec)
    return {
        "personalities": list(spec.personalities),
        "file": spec.params.model,
        "size": facts.size if facts is not None else None,
        "quantisation": facts.quantisation if facts is not None else None,
        "trained_context": facts.trained if facts is not None else None,
        "description": spec.description,
        "pinned": spec.pinned,
        "preload": spec.preload,
        "remote": bool(spec.url),
    }


@needs(Scope.ADMIN)
async def model_log(request: web.Request) -> web.StreamResponse:
    """GET /admin/models/NAME/log: what its llama-server wrote, then what it writes, as events.

    Each line is one ``data:``. ``?follow=false``: what there is, as ``{"lines": [...]}``.
    """
    name = request.match_info["model"]
    backend = request.app[SCHEDULER].backend(name)
    if backend is None:
        meant = did_you_mean(name, request.app[LIBRARY].catalog.names)
        raise ModelNotFound(f"there is no model {name[:200]!r}{meant}", param="model")
    if request.query.get("follow", "").lower() in ("false", "0"):
        return json_response({"lines": backend.log.tail()})
    return await endless(request, backend.log.follow(backlog=1000))


@needs(Scope.ADMIN)
async def reload_keys(request: web.Request) -> web.Response:
    """POST /admin/keys/reload: the command line has changed the store."""
    ring = await request.app[GATE].wait()
    await ring.reload()
    return json_response({"message": "Keys reloaded."})
