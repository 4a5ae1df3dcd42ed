"""GET /schemas/NAME: the JSON Schemas of models.json and gateway.yaml, for editors and programs."""

from __future__ import annotations

import asyncio

from aiohttp import web

from gateway.errors import NotFound
from gateway.pipeline.route import Routes, Row
from gateway.scope import Scope


class SchemaHandlers:
    """Serves the JSON Schemas that are installed with the gateway."""

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        return (Row("GET", "/schemas/{name}", self.schema, Scope.CHAT, counts=False),)

    async def schema(self, request: web.Request) -> web.Response:
        """GET /schemas/models.json, /schemas/gateway.json: the JSON Schema of that file
        (2020-12).
        """
        from gateway import json_schemas  # few ask for it

        name = request.match_info["name"]
        if name not in json_schemas.FILES:
            known = ", ".join(json_schemas.FILES)
            raise NotFound(f"there is no schema {name[:100]!r}; there are: {known}", param="name")
        body = await asyncio.to_thread(json_schemas.read, name)
        return web.Response(body=body, content_type="application/schema+json", charset="utf-8")
