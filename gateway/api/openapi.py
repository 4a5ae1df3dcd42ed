"""GET /openapi.json and GET /docs: what this gateway answers, made from its route tables.

Both are for everybody to read: they tell what the software does, and nothing of this box. Trying
an operation out asks for a key.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson
from aiohttp import web

from gateway.api.app_keys import SETTINGS
from gateway.api.route import Routes, answers_with, needs
from gateway.proxy.body import exact
from gateway.scope import Scope


@dataclass(frozen=True, slots=True)
class Made:
    """The document as JSON, as it is and packed by gzip, and the plain page."""

    document: bytes
    packed: bytes
    page: bytes


class Documents:
    """Made at the first request and kept: they never change while it runs."""

    def __init__(self, routes: Routes) -> None:
        self._routes = tuple(routes)
        self._made: Made | None = None
        self._making = asyncio.Lock()

    async def of(self, app: web.Application) -> Made:
        """All of it."""
        async with self._making:  # once, however many ask meanwhile: nobody needs a key for it
            if self._made is None:
                query_key = app[SETTINGS].auth.allow_query_key
                self._made = await asyncio.to_thread(self._make, query_key)  # 200 ms
        return self._made

    def _make(self, query_key: bool) -> Made:
        # Few ask for it: the gateway starts without it.
        from gateway.api import openapi_page
        from gateway.api.openapi_document import document

        made = document(self._routes, query_key=query_key)
        body = exact(orjson.dumps(made))
        return Made(body, gzip.compress(body, 9, mtime=0), openapi_page.render(made).encode())


DOCUMENTS = web.AppKey("documents", Documents)
#: Answers /docs with the page that was built, or gives ``None``; not there without a page.
BUILT: web.AppKey[Callable[[web.Request], Awaitable[web.Response | None]]] = web.AppKey(
    "docs_built"
)


@needs(Scope.PUBLIC)
async def openapi_json(request: web.Request) -> web.Response:
    """GET /openapi.json: this document (OpenAPI 3.1)."""
    made = await request.app[DOCUMENTS].of(request.app)
    headers = {"Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return web.Response(body=made.packed, content_type="application/json", headers=headers)
    return web.Response(body=made.document, content_type="application/json", headers=headers)


@needs(Scope.PUBLIC)
@answers_with("text/html")
async def docs(request: web.Request) -> web.Response:
    """GET /docs: the same as a page to read, and to try what it tells of."""
    built = request.app.get(BUILT)
    if built is not None and (page := await built(request)) is not None:
        return page
    from gateway.api.openapi_page import HEADERS

    made = await request.app[DOCUMENTS].of(request.app)
    return web.Response(body=made.page, content_type="text/html", charset="utf-8", headers=HEADERS)
