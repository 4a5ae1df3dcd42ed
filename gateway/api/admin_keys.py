"""Keys and their usage over HTTP, as ``llm-gateway keys`` has them on the command line."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gateway.access.accounting import Accounting
from gateway.access.gate import KeyGate
from gateway.access.key_names import unknown_names
from gateway.access.key_schema import WRITTEN, fields_in, shown
from gateway.access.principal import WITHOUT_KEY
from gateway.access.usage_report import added_up, as_csv, by_in, days_in
from gateway.api.overview import as_json
from gateway.errors import BadRequest
from gateway.http.csv_response import wants_csv
from gateway.http.json_response import json_response
from gateway.library import Library
from gateway.models.catalog import Catalog
from gateway.pipeline.reading import json_body, refuse_unknown
from gateway.pipeline.route import Routes, Row
from gateway.proxy.body import JsonObject
from gateway.scope import Scope


class AdminKeyHandlers:
    """Lists, makes, changes and revokes keys, and tells what was used with them."""

    def __init__(self, gate: KeyGate, accounting: Accounting, library: Library) -> None:
        self._gate = gate
        self._accounting = accounting
        self._library = library

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        admin = Scope.ADMIN
        return (
            Row("POST", "/admin/keys/reload", self.reload_keys, admin),
            Row("GET", "/admin/keys", self.list_keys, admin),
            Row("POST", "/admin/keys", self.create_key, admin),
            Row("PATCH", "/admin/keys/{id}", self.change_key, admin),
            Row("DELETE", "/admin/keys/{id}", self.revoke_key, admin),
            Row("GET", "/admin/usage", self.usage, admin),
        )

    async def reload_keys(self, request: web.Request) -> web.Response:
        """POST /admin/keys/reload: the command line has changed the store."""
        ring = await self._gate.wait()
        await ring.reload()
        return json_response({"message": "Keys reloaded."})

    async def list_keys(self, request: web.Request) -> web.Response:
        """GET /admin/keys: every key, revoked ones too, oldest first; never their text."""
        ring = await self._gate.wait()
        return json_response({"keys": [shown(record) for record in ring.records]})

    async def create_key(self, request: web.Request) -> web.Response:
        """POST /admin/keys ``{name, description?, ...}``: 201 with the ``key``, shown only here."""
        fields = await self._fields(request)
        if "name" not in fields:
            raise BadRequest("`name` is missing: who or what the key is for", param="name")
        ring = await self._gate.wait()
        record, key = await ring.create(**fields)
        response = json_response({**shown(record), "key": key}, status=201)
        response.headers["Cache-Control"] = "no-store"
        return response

    async def change_key(self, request: web.Request) -> web.Response:
        """PATCH /admin/keys/ID: a JSON Merge Patch (RFC 7396) of the fields that POST takes."""
        fields = await self._fields(request)
        ring = await self._gate.wait()
        record = await ring.change(request.match_info["id"], fields, force=_forced(request))
        return json_response(shown(record))

    async def revoke_key(self, request: web.Request) -> web.Response:
        """DELETE /admin/keys/ID: end it, at once and for good; ``?force=true``: the last
        admin's.
        """
        ring = await self._gate.wait()
        return json_response(
            shown(await ring.revoke(request.match_info["id"], force=_forced(request)))
        )

    async def usage(self, request: web.Request) -> web.Response:
        """GET /admin/usage?days=30: requests and tokens by key and model, and the last requests.

        Days are those of UTC, and today is one of them. ``?by=day``, or several of ``key``,
        ``model`` and ``day`` with commas between them: one row for each of these. With ``Accept:
        text/csv`` or ``?format=csv`` as CSV.
        """
        days, by, csv = days_in(request), by_in(request), wants_csv(request)
        ring, accounting = await self._gate.wait(), self._accounting

        def name_of(key_id: str) -> str | None:
            return WITHOUT_KEY.get(key_id) or ring.name_of(key_id)

        rows = added_up(await accounting.usage(days=days), by, name_of)
        if csv:
            return as_csv(rows, by, days)
        recent = [as_json(record, name_of(record.key_id)) for record in accounting.recent]
        return json_response({"days": days, "usage": rows, "recent": recent})

    async def _fields(self, request: web.Request) -> dict[str, Any]:
        """Return the fields in the body by the names of a ``KeyRecord``; the ring checks more."""
        body = await json_body(request)
        refuse_unknown(body, WRITTEN)
        library = self._library
        await library.refresh()
        _check_names(library.catalog, body)
        return fields_in(body)


# --- what comes in ---------------------------------------------------------------------------


def _check_names(catalog: Catalog, body: JsonObject) -> None:
    """Refuse models and personalities that models.json does not have."""

    def names(field: str) -> list[object]:
        value = body.get(field)
        return value if isinstance(value, list) else []

    for unknown in unknown_names(
        catalog,
        models=names("models"),
        personalities=names("personalities"),
        default=body.get("defaultPersonality"),
    ):
        raise BadRequest(unknown.message, param=unknown.field)


def _forced(request: web.Request) -> bool:
    text = request.query.get("force", "false").lower()
    if text not in ("true", "1", "false", "0"):
        raise BadRequest("`force` must be true or false", param="force")
    return text in ("true", "1")
