"""Routes that need no key: is it there, is it ready, and the ACME challenge files."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from aiohttp import web

from gateway.api.app_keys import LIBRARY, LIFECYCLE, SETTINGS
from gateway.api.classic import json_response
from gateway.api.route import needs
from gateway.errors import NotFound
from gateway.http.tls_state import TLS
from gateway.scope import Scope

#: RFC 8555, 8.3: a token is base64url, so there is nothing to traverse with.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,256}")


@needs(Scope.PUBLIC)
async def ping(request: web.Request) -> web.Response:
    """GET /ping."""
    return web.Response(text="pong")


@needs(Scope.PUBLIC)
async def health(request: web.Request) -> web.Response:
    """GET /health: the process lives and answers."""
    return json_response({"status": "ok"})


@needs(Scope.PUBLIC)
async def ready(request: web.Request) -> web.Response:
    """GET /ready: 200 while requests are taken, 503 while starting and stopping.

    A ``note`` says what is amiss meanwhile: that models.json is broken.
    """
    lifecycle = request.app[LIFECYCLE]
    if lifecycle.stopping.is_set():
        return json_response({"status": "stopping"}, status=503)
    if not lifecycle.ready:
        return json_response({"status": "starting"}, status=503)
    note = request.app[LIBRARY].note
    return json_response({"status": "ready", **({"note": note} if note else {})})


@needs(Scope.PUBLIC)
async def acme_challenge(request: web.Request) -> web.StreamResponse:
    """GET /.well-known/acme-challenge/TOKEN: our own proof, or a file that another ACME client
    put into ``public_dir``.
    """
    token = request.match_info["token"]
    if (own := request.app[TLS].acme_tokens.get(token)) is not None:
        return web.Response(body=own.encode(), content_type="application/octet-stream")
    if _TOKEN.fullmatch(token):
        folder = request.app[SETTINGS].public_dir / ".well-known" / "acme-challenge"
        file = await asyncio.to_thread(_inside, folder, token)
        if file is not None:
            return web.FileResponse(file, headers={"Content-Type": "text/plain"})
    raise NotFound("there is no such challenge")


def _inside(folder: Path, name: str) -> Path | None:
    """The regular file ``name`` of ``folder``, unless it is a link that leads out of it."""
    try:
        file = (folder / name).resolve(strict=True)
        home = folder.resolve(strict=True)
    except OSError:
        return None
    return file if file.is_file() and file.parent == home else None
