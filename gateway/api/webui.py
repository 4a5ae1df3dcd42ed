"""llama.cpp's own web UI under /ui/: its files need no key, but the routes that it calls do.

The page asks for llama-server's routes relative to its own address, so the handler of /v1/models
answers /ui/v1/models as well. It asks its user for the key, and keeps it in the browser.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterable

from aiohttp import web

from gateway.backends.webui import WebUi, WebUiFile
from gateway.errors import GatewayError, NotFound, Unavailable
from gateway.pipeline.route import Routes, Row
from gateway.scope import Scope

#: The routes that the page calls, and no others. A route that is refused is refused here too.
_ASKED_FOR = frozenset(
    {
        ("GET", "/props"),
        ("GET", "/slots"),
        ("GET", "/v1/models"),
        ("POST", "/models/load"),
        ("POST", "/models/unload"),
        ("GET", "/models/sse"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/chat/completions/control"),
        ("GET", "/tools"),
        ("POST", "/tools"),
        ("GET", "/cors-proxy"),
        ("POST", "/cors-proxy"),
        ("GET", "/v1/stream"),
        ("DELETE", "/v1/stream"),
        ("POST", "/v1/streams/lookup"),
    }
)
#: The page talks to this gateway alone, so a model's answer can't make it load from, or send to,
#: another place. Some of its styles are inline, and PDF files are read in a worker made of a blob.
_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'{scripts}; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' data: blob:; manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class NoWebUi(GatewayError):
    """501: this llama-server was built without its web UI."""

    status = 501
    default_code = "no_web_ui"
    retryable = False


class WebUiHandlers:
    """Serves the page and its files, and the routes of the gateway that it asks for."""

    def __init__(self, web_ui: WebUi, others: Iterable[Row]) -> None:
        """``others``: the rows of the gateway, of which some are served below /ui as well."""
        self._web_ui = web_ui
        self._asked_for = [row for row in others if (row.method, row.path) in _ASKED_FOR]

    def routes(self) -> Routes:
        """Return the rows of everything under /ui/."""
        for row in self._asked_for:
            yield row._replace(path=f"/ui{row.path}")
        yield Row("GET", "/ui", self.to_page, Scope.PUBLIC)
        yield Row("GET", "/ui/{path:.*}", self.file, Scope.PUBLIC)

    async def to_page(self, request: web.Request) -> web.StreamResponse:
        """GET /ui: the page's addresses begin behind its slash. A key in the query goes no
        further.
        """
        return web.Response(status=308, headers={"Location": "ui/"})

    async def file(self, request: web.Request) -> web.StreamResponse:
        """GET /ui/: the page, and below it what belongs to it."""
        path = request.match_info["path"].removesuffix("index.html")
        try:
            files = await (self._web_ui.page() if not path else self._web_ui.files())
        except GatewayError as error:
            # What is wrong with this machine is for its owner, and the log, to know.
            raise Unavailable(
                "the web UI of llama-server is not to be had now; the gateway's log says why",
                code="web_ui_failed",
                headers={"Retry-After": "30"},
            ) from error
        if not files:
            raise NoWebUi("the llama-server of this gateway was built without its web UI")
        if (found := files.get(path)) is None:
            raise NotFound(f"the web UI has no file {path[:200]!r}", code="file_not_found")
        return await _answer(request, found)


async def _answer(request: web.Request, found: WebUiFile) -> web.Response:
    headers = {**found.headers, "Vary": "Accept-Encoding", "ETag": f'"{found.etag}"'}
    scripts = "".join(f" {script}" for script in found.scripts)
    headers["Content-Security-Policy"] = _POLICY.format(scripts=scripts)
    if any(tag.value in (found.etag, "*") for tag in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        return web.Response(body=found.packed, headers={**headers, "Content-Encoding": "gzip"})
    return web.Response(
        body=await asyncio.to_thread(gzip.decompress, found.packed), headers=headers
    )
