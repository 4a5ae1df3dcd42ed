"""Serves the web page at ``/`` and its files to everybody, without a key.

Its address is also the API's. A program that asks for ``/`` without wanting HTML is told, in JSON
as everywhere, where it should have asked. All other paths of the page are its own.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import payload, web
from aiohttp.abc import AbstractStreamWriter

from gateway.access.presented_key import presented_key
from gateway.access.principal import OLLAMA
from gateway.errors import NotFound, Unauthorized
from gateway.pipeline.request_context import CONTEXT
from gateway.pipeline.route import Routes, Row
from gateway.scope import Scope
from gateway.web.files import DOCS, File, Files

#: Scripts and styles are separate files, never inline, so a model's answer can't run as code. Nor
#: can it load from, or send to, another place: images are the page's or the user's own (``blob:``,
#: ``data:``), and forms lead nowhere. Only the page's own scripts may connect to other hosts,
#: because a user can add other gateways, whose addresses this one doesn't know. Without TLS those
#: are plain http, which browsers block on an https page anyway.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' data: blob:; font-src 'self'; connect-src 'self' https: http:; "
    "worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), clipboard-write=(self), display-capture=(), "
    "geolocation=(), microphone=(), payment=(), usb=()",
}
#: The policy of /docs: it talks to this gateway alone. Swagger UI's arrows are `data:` images.
_DOCS_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: Values of Cache-Control. Names of assets hold a hash of their content; all other files are
#: revalidated, icons less often.
FOR_EVER: Final = "public, max-age=31536000, immutable"
A_DAY: Final = "public, max-age=86400"
ASK_AGAIN: Final = "no-cache"
#: The answer if the page wasn't built: installing went on without npm's packages.
_NOT_BUILT: Final = """<!doctype html><html lang="en"><head><meta charset="utf-8">\
<meta name="viewport" content="width=device-width, initial-scale=1">\
<meta name="color-scheme" content="light dark"><title>LLM-API Gateway</title></head><body>\
<h1>LLM-API Gateway</h1><p>This gateway was installed without its page: install it once more with \
a way to npm's registry, or run <code>npm ci && npm run build</code> in \
<code>gateway/web</code> of its source, and load this page again.</p>\
<p>The API works without it: <a href="/docs">/docs</a> lists all routes.</p></body></html>"""


#: Bytes that are given to a connection at once.
_AT_ONCE: Final = 64 * 1024


class _PagePieces(payload.Payload):
    """Bytes that are sent piece by piece, each when the client has taken those before.

    In one piece, what a slow client does not take would be copied for each of them, and whoever
    asks for the page needs no key.
    """

    _value: bytes

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._size = len(content)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send all of it."""
        whole = memoryview(self._value)
        for start in range(0, len(whole), _AT_ONCE):
            await writer.write(whole[start : start + _AT_ONCE])

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return all of it as text."""
        return self._value.decode(encoding, errors)


class PageHandlers:
    """Serves the page and its assets. Nothing is read before somebody asks."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def routes(self) -> Routes:
        """Return ``(method, path, handler)`` of the page. They are not part of the API, nor
        of its document.
        """
        yield Row("GET", "/", self.root, Scope.PUBLIC, head=True)
        for path in ("/favicon.ico", "/manifest.webmanifest", "/sw.js"):
            yield Row("GET", path, self.file, Scope.PUBLIC, head=True)
        for folder in ("assets", "icons"):
            yield Row("GET", f"/{folder}/{{path:.+}}", self.file, Scope.PUBLIC, head=True)

    async def root(self, request: web.Request) -> web.StreamResponse:
        """GET /: the page for clients that take HTML; for others, where the API is.

        HEAD by which those of Ollama see whether it runs, is answered to all; GET, to those that
        need no key for its API, in its words.
        """
        if "text/html" not in ",".join(request.headers.getall("Accept", ())).lower():
            if request.method == "HEAD":
                return web.Response(content_type="text/plain")
            context = request[CONTEXT]
            try:
                gate = context.services.gate
                key = presented_key(request, allow_query=gate.keys_in_queries)
                if gate.is_closed and key is not None:
                    await gate.wait()
                context.principal = gate.identify(request, key, Scope.OLLAMA)
                if context.principal is OLLAMA:
                    return web.Response(text="Ollama is running")
            except Unauthorized as error:
                error.public = f"{error.public}. In a browser, / is a page; the API is below /v1"
                raise
            raise context.services.addresses.no_route(request.method, request.path)
        found = await asyncio.to_thread(self._files.page)
        if found is None:
            headers = {**HEADERS, "Cache-Control": "no-store", "Vary": "Accept"}
            return web.Response(
                status=501,
                text=_NOT_BUILT,
                content_type="text/html",
                charset="utf-8",
                headers=headers,
            )
        return _answer(request, found, ASK_AGAIN, vary="Accept, Accept-Encoding")

    async def file(self, request: web.Request) -> web.StreamResponse:
        """GET /assets/...: the files of the page."""
        path = request.path.removeprefix("/")
        files = self._files
        found = files.kept(path)
        if found is None and files.may_have(path):
            found = await asyncio.to_thread(files.file, path)
        if found is None:
            raise NotFound(f"the page has no file {path[:200]!r}", code="file_not_found")
        folder = path.split("/", 1)[0]
        caching = {"assets": FOR_EVER, "icons": A_DAY, "favicon.ico": A_DAY}.get(folder, ASK_AGAIN)
        return _answer(request, found, caching, vary="Accept-Encoding")

    async def docs(self, request: web.Request) -> web.Response | None:
        """Return the page of the API, for /docs; ``None`` if it was never built."""
        files = self._files
        if await asyncio.to_thread(files.page) is None:
            return None
        found = files.kept(DOCS) or await asyncio.to_thread(files.file, DOCS)
        if found is None:
            return None
        response = _answer(request, found, ASK_AGAIN, vary="Accept-Encoding")
        response.headers["Content-Security-Policy"] = _DOCS_POLICY
        return response


def _answer(request: web.Request, found: File, caching: str, *, vary: str) -> web.Response:
    body = found.body(",".join(request.headers.getall("Accept-Encoding", ())))
    headers = {**HEADERS, "Cache-Control": caching, "ETag": f'"{body.etag}"', "Vary": vary}
    if any(tag.value in (body.etag, "*") for tag in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    if body.coding is not None:
        headers["Content-Encoding"] = body.coding
    headers["Content-Type"] = found.kind
    large = len(body.content) > _AT_ONCE
    return web.Response(body=_PagePieces(body.content) if large else body.content, headers=headers)
