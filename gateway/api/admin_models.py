"""Entries of models.json over HTTP: see docs/admin-models.md."""

from __future__ import annotations

from functools import partial
from typing import Any

from aiohttp import web

from gateway.entries import Conditions, Entries, Stored
from gateway.errors import ModelNotFound
from gateway.models.merge_patch import merged
from gateway.pipeline.reading import json_body
from gateway.pipeline.request_context import CONTEXT
from gateway.pipeline.route import Routes, Row
from gateway.proxy.body import serialise
from gateway.scope import Scope


class ModelEntryHandlers:
    """Shows and changes the entries of models.json."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        path, admin = "/admin/models/{name:.+}", Scope.ADMIN
        return (
            Row("GET", path, self.get_entry, admin),
            Row("PUT", path, self.put_entry, admin),
            Row("PATCH", path, self.patch_entry, admin),
            Row("DELETE", path, self.delete_entry, admin),
        )

    async def get_entry(self, request: web.Request) -> web.Response:
        """GET /admin/models/NAME: the entry as it stands in models.json, without what is secret.

        ``ETag`` is for ``If-Match`` of a change, and changes with the entry.
        """
        stored = await self._entries.get(_name(request))
        asked = _tags(request, "If-None-Match")
        if asked is not None and ("*" in asked or stored.etag in asked):
            return web.Response(status=304, headers={"ETag": f'"{stored.etag}"'})
        return _answer(stored)

    async def put_entry(self, request: web.Request) -> web.Response:
        """PUT /admin/models/NAME: make the entry what the body is; in use when it's answered.

        201 where there was none. ``If-Match: ETAG``: only the one that was read;
        ``If-None-Match: *``: only where there is none.
        """
        body = await json_body(request)
        return _answer(await self._change(request, lambda _before: body))

    async def patch_entry(self, request: web.Request) -> web.Response:
        """PATCH /admin/models/NAME: change an entry by a JSON Merge Patch (RFC 7396)."""
        return _answer(
            await self._change(request, partial(_patched, request, await json_body(request)))
        )

    async def delete_entry(self, request: web.Request) -> web.Response:
        """DELETE /admin/models/NAME: take the entry out; the model is drained. Its file stays."""
        await self._change(request, lambda _before: None)
        return web.Response(status=204)

    async def _change(self, request: web.Request, make: Any) -> Stored | None:
        conditions = Conditions(_tags(request, "If-Match"), _tags(request, "If-None-Match"))
        by = f"the key {request[CONTEXT].principal.key_id}"
        return await self._entries.change(_name(request), make, conditions, by=by)


def _patched(
    request: web.Request, patch: dict[str, Any], before: dict[str, Any] | None
) -> dict[str, Any]:
    if before is None:
        name = _name(request)[:200]
        raise ModelNotFound(
            f"there is no entry {name!r} in models.json: PUT makes one", param="name"
        )
    changed: dict[str, Any] = merged(before, patch)
    return changed


def _name(request: web.Request) -> str:
    return request.match_info["name"]


def _tags(request: web.Request, header: str) -> tuple[str, ...] | None:
    """Return the entity tags in ``header`` (``*``: any), or ``None`` without that header.

    Weak ones (``W/``) are left out, as they match none of ours (RFC 9110, 8.8.3.2).
    """
    if header not in request.headers:
        return None
    found = request.if_match if header == "If-Match" else request.if_none_match
    return tuple(tag.value for tag in found or () if not tag.is_weak)


def _answer(stored: Stored | None) -> web.Response:
    assert stored is not None
    return web.Response(
        status=201 if stored.created else 200,
        body=serialise(stored.entry),  # bodies that it sets may hold any number
        content_type="application/json",
        charset="utf-8",
        headers={"ETag": f'"{stored.etag}"'},
    )
