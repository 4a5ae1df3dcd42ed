"""Routes that need no key: probes of the gateway's health, and ACME's challenges."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from aiohttp import web

from gateway.errors import NotFound
from gateway.http.json_response import json_response
from gateway.http.lifecycle import Lifecycle
from gateway.http.tls_state import TlsState
from gateway.library import Library
from gateway.pipeline.route import Routes, Row
from gateway.scope import Scope

#: A token (RFC 8555, 8.3): base64url, so that it can't name another folder.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,256}")


class ProbeHandlers:
    """Tells whether the gateway runs, and whether it takes requests."""

    def __init__(self, lifecycle: Lifecycle, library: Library, challenges: AcmeChallenges) -> None:
        self._lifecycle = lifecycle
        self._library = library
        self._challenges = challenges

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        public = Scope.PUBLIC
        proof = "/.well-known/acme-challenge/{token}"
        return (
            Row("GET", "/ping", self.ping, public, head=True),
            Row("GET", "/health", self.health, public, head=True),
            Row("GET", "/ready", self.ready, public),
            Row("GET", proof, self._challenges.acme_challenge, public),
            Row("GET", "/v1/health", self.health, public, head=True),
        )

    async def ping(self, request: web.Request) -> web.Response:
        """GET /ping."""
        return web.Response(text="pong")

    async def health(self, request: web.Request) -> web.Response:
        """GET /health: the process lives and answers."""
        return json_response({"status": "ok"})

    async def ready(self, request: web.Request) -> web.Response:
        """GET /ready: 200 while requests are taken, 503 while starting and stopping.

        A ``note`` says what is amiss meanwhile: that models.json is broken.
        """
        lifecycle = self._lifecycle
        if lifecycle.stopping.is_set():
            return json_response({"status": "stopping"}, status=503)
        if not lifecycle.ready:
            return json_response({"status": "starting"}, status=503)
        note = self._library.note
        return json_response({"status": "ready", **({"note": note} if note else {})})


class AcmeChallenges:
    """Serves the proofs that an ACME authority asks for over plain HTTP (RFC 8555, 8.3)."""

    def __init__(self, tls: TlsState, public_dir: Path) -> None:
        self._tls = tls
        self._folder = public_dir / ".well-known" / "acme-challenge"

    async def acme_challenge(self, request: web.Request) -> web.StreamResponse:
        """GET /.well-known/acme-challenge/TOKEN: our own proof, or a file that another ACME client
        put into ``public_dir``.
        """
        token = request.match_info["token"]
        if (own := self._tls.acme_tokens.get(token)) is not None:
            return web.Response(body=own.encode(), content_type="application/octet-stream")
        if _TOKEN.fullmatch(token):
            file = await asyncio.to_thread(_inside, self._folder, token)
            if file is not None:
                return web.FileResponse(file, headers={"Content-Type": "text/plain"})
        raise NotFound("there is no such challenge")


def _inside(folder: Path, name: str) -> Path | None:
    """Return the regular file ``name`` of ``folder``, unless it is a link that leads out of it."""
    try:
        file = (folder / name).resolve(strict=True)
        home = folder.resolve(strict=True)
    except OSError:
        return None
    return file if file.is_file() and file.parent == home else None
