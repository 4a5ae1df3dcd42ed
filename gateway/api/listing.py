"""GET /v1/models: the models, and each personality as a virtual model, as OpenAI lists them."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gateway.api.classic import json_response
from gateway.api.context import LIBRARY, PRINCIPAL
from gateway.errors import ModelNotFound


async def openai_models(request: web.Request) -> web.Response:
    """GET /v1/models (OpenAI reference, Models): sorted as in models.json."""
    library = request.app[LIBRARY]
    await library.refresh()
    library.check()
    return json_response({"object": "list", "data": _objects(request)})


async def openai_model(request: web.Request) -> web.Response:
    """GET /v1/models/ID: one of them; ID may hold ``/`` and ``:``."""
    wanted = request.match_info["model"]
    for item in _objects(request):
        if item["id"] == wanted:
            return json_response(item)
    raise ModelNotFound(f"there is no model {wanted[:200]!r}", param="model")


def _objects(request: web.Request) -> list[dict[str, Any]]:
    library, principal = request.app[LIBRARY], request[PRINCIPAL]
    return [
        {
            "id": name,
            "object": "model",
            "created": library.created,
            "owned_by": "llm-gateway",
            **({"description": spec.description} if spec.description else {}),
            **({"personality": personality} if personality is not None else {}),
        }
        for name, spec, personality in library.resolver.virtual_names()
        if principal.models is None or spec.name in principal.models
        if personality is None
        or principal.personalities is None
        or personality in principal.personalities
    ]
