"""GET /admin/storage: what ``llm-gateway models scan`` finds."""

from __future__ import annotations

from aiohttp import web

from gateway.library import Library
from gateway.pipeline.route import Routes, Row
from gateway.scope import Scope
from gateway.storage_scan import StorageScan


class StorageHandlers:
    """Shows the model files in ``llm_storage``."""

    def __init__(self, library: Library, scan: StorageScan) -> None:
        self._library = library
        self._scan = scan

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        return (Row("GET", "/admin/storage", self.storage, Scope.ADMIN),)

    async def storage(self, request: web.Request) -> web.Response:
        """GET /admin/storage: the GGUF files that models.json doesn't name, and entries for them.

        An array of the objects of ``llm-gateway models scan --json``, and in each ``refused``: why
        PUT would not take the proposed entry, or null.
        """
        library = self._library
        await library.refresh()
        body = await self._scan.look(library.catalog)
        return web.Response(body=body, content_type="application/json", charset="utf-8")
