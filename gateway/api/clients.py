"""GET /clients: how the clients that people use are set up for this gateway, ready to be pasted."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from gateway.access.presented_key import presented_key
from gateway.api.listing import Listing
from gateway.config.settings import Settings
from gateway.errors import BadRequest, ModelNotFound
from gateway.http.json_response import json_response
from gateway.http.tls_state import TlsState
from gateway.library import Library
from gateway.pipeline.request_context import CONTEXT
from gateway.pipeline.route import Routes, Row
from gateway.scope import Scope

#: An address without a path, and without any character that is special to a shell.
_ADDRESS: Final = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]{1,260}")
#: A placeholder for a key. No key matches it, because a real key must not stand in an address.
_WORD: Final = re.compile(r"[A-Z][A-Z_]{2,39}")


class ClientHandlers:
    """Tells how clients are set up for this gateway."""

    def __init__(
        self, settings: Settings, library: Library, listing: Listing, tls: TlsState
    ) -> None:
        self._settings = settings
        self._library = library
        self._listing = listing
        self._tls = tls

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        return (Row("GET", "/clients", self.clients, Scope.CHAT, counts=False),)

    async def clients(self, request: web.Request) -> web.Response:
        """GET /clients: lines for each client, for one model; ``?key=true``: with the key that
        asks, ``?key=YOUR_KEY``: with that word, in capitals, in its place.

        ``?model=``: else the only one there is to chat with. ``?url=``: the gateway's address as
        its clients know it; else the one that was asked. Where an authority of one's own has signed
        the certificate, its text is the first part, and the lines make the client trust it.
        """
        await self._library.refresh()
        principal, wanted = request[CONTEXT].principal, request.query.get("model")
        entries = await self._listing.objects(principal)
        url = _address(request)
        key = self._key(request)
        named = await self._listing.named(principal, wanted) if wanted is not None else None
        entry = named or _first(entries)
        embeddings = next((e["id"] for e in entries if "embeddings" in e["capabilities"]), None)
        lines = partial(
            _lines,
            url,
            entry["id"],
            key,
            context=entry.get("context_size"),
            vision="vision" in entry["capabilities"],
            embeddings=embeddings,
            authority=self._authority(url),
        )
        response = json_response(await asyncio.to_thread(lines))
        response.headers["Cache-Control"] = "no-store"
        return response

    def _authority(self, url: str) -> Path | None:
        """Return the file of the authority that clients must trust; it may hold a key as well."""
        tls, certificate = self._settings.tls, self._tls.certificate
        if certificate is None or not certificate.local or url.startswith("http:"):
            return None
        return tls.ca_chain or tls.certificate

    def _key(self, request: web.Request) -> str | None:
        """Return what stands for a key in the lines; ``None``: the variable that holds one."""
        text = request.query.get("key", "false")
        if _WORD.fullmatch(text) is not None and text not in ("TRUE", "FALSE"):
            return text
        if text.lower() not in ("true", "1", "false", "0"):
            raise BadRequest(
                "`key` must be true, false, or a word in capitals that stands for one, "
                "like YOUR_KEY",
                param="key",
            )
        if text.lower() in ("false", "0"):
            return None
        query = self._settings.auth.allow_query_key
        return presented_key(request, allow_query=query) or "no-key"


def _lines(*asked: Any, **more: Any) -> dict[str, Any]:
    # Few ask for it: the gateway starts without it.
    from gateway.clients.report import told

    return told(*asked, **more)


def _address(request: web.Request) -> str:
    given = request.query.get("url")
    if given is None:
        return f"{request.scheme}://{request.host}"
    if _ADDRESS.fullmatch(given) is None:
        raise BadRequest(
            "`url` must be an address without a path, like https://box.example:8443", param="url"
        )
    return given


def _first(entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the model that is loaded, or the first, to chat with if possible."""
    models = [entry for entry in entries if "parent" not in entry]
    chat = [e for e in models if not {"embeddings", "rerank"} & set(e["capabilities"])]
    loaded = [entry for entry in chat if entry["status"]["value"] == "loaded"]
    if found := (loaded or chat or models):
        return found[0]
    raise ModelNotFound("there is no model yet: models.json names none", param="model")
