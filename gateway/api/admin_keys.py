"""Keys and their usage over HTTP: what ``llm-gateway keys`` does, for a program or a page."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gateway.access.accounting import ACCOUNTING
from gateway.access.key_names import unknown_names
from gateway.access.key_schema import WRITTEN, fields_in, shown
from gateway.access.principal import WITHOUT_KEY
from gateway.access.usage_report import added_up, as_csv, by_in, days_in, wants_csv
from gateway.api.app_keys import GATE, LIBRARY
from gateway.api.classic import json_response
from gateway.api.overview import as_json
from gateway.api.reading import json_body, refuse_unknown
from gateway.api.route import needs
from gateway.errors import BadRequest
from gateway.models.catalog import Catalog
from gateway.proxy.body import JsonObject
from gateway.scope import Scope


@needs(Scope.ADMIN)
async def list_keys(request: web.Request) -> web.Response:
    """GET /admin/keys: every key, revoked ones too, oldest first; never their text."""
    ring = await request.app[GATE].wait()
    return json_response({"keys": [shown(record) for record in ring.records]})


@needs(Scope.ADMIN)
async def create_key(request: web.Request) -> web.Response:
    """POST /admin/keys ``{name, description?, ...}``: 201 with the ``key``, shown only here."""
    fields = await _fields(request)
    if "name" not in fields:
        raise BadRequest("`name` is missing: who or what the key is for", param="name")
    ring = await request.app[GATE].wait()
    record, key = await ring.create(**fields)
    response = json_response({**shown(record), "key": key}, status=201)
    response.headers["Cache-Control"] = "no-store"
    return response


@needs(Scope.ADMIN)
async def change_key(request: web.Request) -> web.Response:
    """PATCH /admin/keys/ID: a JSON Merge Patch (RFC 7396) of the fields that POST takes."""
    fields = await _fields(request)
    ring = await request.app[GATE].wait()
    record = await ring.change(request.match_info["id"], fields, force=_forced(request))
    return json_response(shown(record))


@needs(Scope.ADMIN)
async def revoke_key(request: web.Request) -> web.Response:
    """DELETE /admin/keys/ID: end it, at once and for good; ``?force=true``: the last admin's."""
    ring = await request.app[GATE].wait()
    return json_response(shown(await ring.revoke(request.match_info["id"], force=_forced(request))))


@needs(Scope.ADMIN)
async def usage(request: web.Request) -> web.Response:
    """GET /admin/usage?days=30: requests and tokens by key and model, and the last requests.

    Days are those of UTC, and today is one of them. ``?by=day``, or several of ``key``, ``model``
    and ``day`` with commas between them: one row for each of these. With ``Accept: text/csv`` or
    ``?format=csv`` as CSV.
    """
    days, by, csv = days_in(request), by_in(request), wants_csv(request)
    ring, accounting = await request.app[GATE].wait(), request.app[ACCOUNTING]

    def name_of(key_id: str) -> str | None:
        return WITHOUT_KEY.get(key_id) or ring.name_of(key_id)

    rows = added_up(await accounting.usage(days=days), by, name_of)
    if csv:
        return as_csv(rows, by, days)
    recent = [as_json(record, name_of(record.key_id)) for record in accounting.recent]
    return json_response({"days": days, "usage": rows, "recent": recent})


# --- what comes in ---------------------------------------------------------------------------


async def _fields(request: web.Request) -> dict[str, Any]:
    """The fields in the body, under the names of a ``KeyRecord``; the ring checks the rest."""
    body = await json_body(request)
    refuse_unknown(body, WRITTEN)
    library = request.app[LIBRARY]
    await library.refresh()
    _check_names(library.catalog, body)
    return fields_in(body)


def _check_names(catalog: Catalog, body: JsonObject) -> None:
    """Refuse models and personalities that models.json hasn't."""

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
