"""GET /openapi.json and GET /docs: what this gateway answers, made from its route tables.

Both ask for a key, any. They hold no secret, but who has no business here shall not learn from
one cheap request what stands behind this port and which version of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import orjson
from aiohttp import web

from gateway.api.context import SETTINGS
from gateway.api.request import Handler

#: ``(method, path, handler)``
Routes = Iterable[tuple[str, str, Handler]]


class Documents:
    """The two answers. Made at the first request and kept: they never change while it runs."""

    def __init__(self, routes: Routes) -> None:
        self._routes = tuple(routes)
        self._made: tuple[bytes, bytes] | None = None

    async def of(self, app: web.Application) -> tuple[bytes, bytes]:
        """The document as JSON, and the page."""
        if self._made is None:
            query_key = app[SETTINGS].auth.allow_query_key
            self._made = await asyncio.to_thread(self._make, query_key)  # 40 ms
        return self._made

    def _make(self, query_key: bool) -> tuple[bytes, bytes]:
        # Few ask for it: the gateway starts without it.
        from gateway.api import openapi_page
        from gateway.api.openapi_document import document

        made = document(self._routes, query_key=query_key)
        return orjson.dumps(made), openapi_page.render(made).encode()


DOCUMENTS = web.AppKey("documents", Documents)


async def openapi_json(request: web.Request) -> web.Response:
    """GET /openapi.json: this document (OpenAPI 3.1)."""
    body, _ = await request.app[DOCUMENTS].of(request.app)
    return web.Response(body=body, content_type="application/json")


async def docs(request: web.Request) -> web.Response:
    """GET /docs: the same as a page to read."""
    from gateway.api.openapi_page import HEADERS

    _, body = await request.app[DOCUMENTS].of(request.app)
    return web.Response(body=body, content_type="text/html", charset="utf-8", headers=HEADERS)
