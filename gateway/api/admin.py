"""What an administrator can look at and change in a running gateway."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from aiohttp import web

from gateway.api.auth import Scope
from gateway.api.classic import json_response
from gateway.api.context import DOOR, LIBRARY, LIFECYCLE, SCHEDULER
from gateway.api.events import endless
from gateway.api.middleware import needs
from gateway.errors import ModelNotFound
from gateway.spelling import did_you_mean

#: Seconds: `llm-gateway status` asks every second, and a look may wake up a GPU's driver.
_SEEN_WITHIN = 5.0


@needs(Scope.ADMIN)
async def models(request: web.Request) -> web.Response:
    """GET /admin/models: each model with its state, load, restarts and last error."""
    library = request.app[LIBRARY]
    personalities = {n: list(s.personalities) for n, s in library.catalog.models.items()}
    data = [
        {**asdict(status), "personalities": personalities.get(status.name, [])}
        for status in request.app[SCHEDULER].status()
    ]
    common = library.choices.common
    active = common._asdict() if common else None
    return json_response(
        {
            "models": data,
            "active": active,
            "models_file_error": library.broken,
            "machine": await _machine(request),
        }
    )


async def _machine(request: web.Request) -> dict[str, Any] | None:
    """Its devices, and what is free of them; ``None`` until they have been looked at once."""
    await request.app[SCHEDULER].see_memory(within=_SEEN_WITHIN)
    accounts = request.app[SCHEDULER].accounts
    capacity = accounts.capacity if accounts is not None else None
    return capacity.report() if capacity is not None else None


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
async def gateway_status(request: web.Request) -> web.Response:
    """GET /admin/status: the gateway as a whole, for ``llm-gateway status``."""
    scheduler, library = request.app[SCHEDULER], request.app[LIBRARY]
    common = library.choices.common
    return json_response(
        {
            "ready": request.app[LIFECYCLE].ready,
            "in_flight": scheduler.in_flight,
            "active": common._asdict() if common else None,
            "models_file_error": library.broken,
            "machine": await _machine(request),
            "models": [asdict(status) for status in scheduler.status()],
        }
    )


@needs(Scope.ADMIN)
async def reload_keys(request: web.Request) -> web.Response:
    """POST /admin/keys/reload: the command line has changed the store."""
    ring = await request.app[DOOR].wait()
    await ring.reload()
    return json_response({"message": "Keys reloaded."})
