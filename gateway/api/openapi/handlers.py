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

from gateway.pipeline.route import Routes, Row
from gateway.proxy.body import exact
from gateway.scope import Scope


@dataclass(frozen=True, slots=True)
class RenderedDocument:
    """The document as JSON, plain and gzipped, and its plain page."""

    document: bytes
    packed: bytes
    page: bytes


class Documents:
    """Makes the document at the first request, and keeps it: it never changes."""

    def __init__(self, routes: Routes, *, query_key: bool) -> None:
        """``query_key``: GET takes ``?authKey=`` as well."""
        self._routes = tuple(routes)
        self._query_key = query_key
        self._made: RenderedDocument | None = None
        self._making = asyncio.Lock()

    async def made(self) -> RenderedDocument:
        """Return the document in all its forms."""
        async with self._making:  # once, however many ask meanwhile: nobody needs a key for it
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)  # 200 ms
        return self._made

    def _make(self) -> RenderedDocument:
        # Few ask for it: the gateway starts without it.
        from gateway.api.openapi import page
        from gateway.api.openapi.document import document

        made = document(self._routes, query_key=self._query_key)
        body = exact(orjson.dumps(made))
        return RenderedDocument(body, gzip.compress(body, 9, mtime=0), page.render(made).encode())


#: Answers /docs with the built page; ``None`` if there is none.
BuiltPage = Callable[[web.Request], Awaitable[web.Response | None]]


class OpenApiHandlers:
    """Serves the document, and its page."""

    def __init__(self, others: Routes, *, query_key: bool, built: BuiltPage | None) -> None:
        """``others``: the other rows of the document; ``built``: the page of ``gateway/web``."""
        self._documents = Documents([*others, *self.routes()], query_key=query_key)
        self._built = built

    def routes(self) -> Routes:
        """Return the rows of these routes."""
        public, html = Scope.PUBLIC, ("text/html",)
        return (
            Row("GET", "/openapi.json", self.openapi_json, public, head=True),
            Row("GET", "/docs", self.docs, public, answers_with=html, head=True),
        )

    async def openapi_json(self, request: web.Request) -> web.Response:
        """GET /openapi.json: this document (OpenAPI 3.1)."""
        made = await self._documents.made()
        headers = {"Vary": "Accept-Encoding"}
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
            return web.Response(body=made.packed, content_type="application/json", headers=headers)
        return web.Response(body=made.document, content_type="application/json", headers=headers)

    async def docs(self, request: web.Request) -> web.Response:
        """GET /docs: the same as a page to read, and to try what it tells of."""
        if self._built is not None and (page := await self._built(request)) is not None:
            return page
        from gateway.api.openapi.page import HEADERS

        made = await self._documents.made()
        return web.Response(
            body=made.page, content_type="text/html", charset="utf-8", headers=HEADERS
        )
