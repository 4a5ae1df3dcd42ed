"""Keys and their usage over HTTP: what ``llm-gateway keys`` does, for a program or a page."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from gateway.api.accounting import ACCOUNTING
from gateway.api.auth import Scope
from gateway.api.classic import json_response
from gateway.api.context import DOOR, LIBRARY
from gateway.api.key_fields import state_of, time_after
from gateway.api.key_names import unknown_names
from gateway.api.keys import KeyRing
from gateway.api.middleware import needs
from gateway.api.principal import ANONYMOUS, LOCAL_ADMIN
from gateway.api.reading import json_body
from gateway.catalog import Catalog
from gateway.errors import BadRequest
from gateway.proxy.body import JsonObject
from gateway.validation import parse_duration

if TYPE_CHECKING:  # SQLAlchemy comes with it: see gateway.store
    from gateway.store import KeyRecord

#: Fields of a key as they are called here, and in a ``KeyRecord``.
_FIELDS: Final = {
    "name": "name",
    "description": "description",
    "admin": "admin",
    "expires": "expires",
    "models": "models",
    "personalities": "personalities",
    "defaultPersonality": "default_personality",
    "limits": "limits",
}
MAX_DAYS: Final = 3660


@needs(Scope.ADMIN)
async def list_keys(request: web.Request) -> web.Response:
    """GET /admin/keys: every key, revoked ones too, oldest first; never their text."""
    ring = await request.app[DOOR].wait()
    return json_response({"keys": [_shown(record) for record in ring.records]})


@needs(Scope.ADMIN)
async def create_key(request: web.Request) -> web.Response:
    """POST /admin/keys ``{name, description?, ...}``: 201 with the ``key``, shown only here."""
    fields = await _fields(request)
    if "name" not in fields:
        raise BadRequest("`name` is missing: who or what the key is for", param="name")
    ring = await request.app[DOOR].wait()
    record, key = await ring.create(**fields)
    response = json_response({**_shown(record), "key": key}, status=201)
    response.headers["Cache-Control"] = "no-store"
    return response


@needs(Scope.ADMIN)
async def change_key(request: web.Request) -> web.Response:
    """PATCH /admin/keys/ID: a JSON Merge Patch (RFC 7396) of the fields that POST takes."""
    fields = await _fields(request)
    ring = await request.app[DOOR].wait()
    record = await ring.change(request.match_info["id"], fields, force=_forced(request))
    return json_response(_shown(record))


@needs(Scope.ADMIN)
async def revoke_key(request: web.Request) -> web.Response:
    """DELETE /admin/keys/ID: end it, at once and for good; ``?force=true``: the last admin's."""
    ring = await request.app[DOOR].wait()
    return json_response(
        _shown(await ring.revoke(request.match_info["id"], force=_forced(request)))
    )


@needs(Scope.ADMIN)
async def usage(request: web.Request) -> web.Response:
    """GET /admin/usage?days=30: requests and tokens by key and model, and the last requests.

    Days are those of UTC, and today is one of them.
    """
    days = _days(request)
    ring, accounting = await request.app[DOOR].wait(), request.app[ACCOUNTING]
    stored = await accounting.usage(days=days)
    names = _names(ring)
    totals: dict[tuple[str, str], dict[str, Any]] = {}
    for used in stored:
        row = totals.setdefault(
            (used.key_id, used.model),
            {
                "key": used.key_id,
                "name": names.get(used.key_id),
                "model": used.model,
                "requests": 0,
                "prompt_tokens": 0,
                "completion_tokens": 0,
            },
        )
        for counter in ("requests", "prompt_tokens", "completion_tokens"):
            row[counter] += getattr(used, counter)
    recent = [
        {
            "time": _second(record.at),
            "key": record.key_id,
            "model": record.model,
            "personality": record.personality,
            "status": record.status,
            "seconds": round(record.seconds, 3),
            **record.usage._asdict(),
        }
        for record in accounting.recent
    ]
    return json_response({"days": days, "usage": list(totals.values()), "recent": recent})


# --- what comes in ---------------------------------------------------------------------------


async def _fields(request: web.Request) -> dict[str, Any]:
    """The fields in the body, under the names of a ``KeyRecord``; the ring checks the rest."""
    body = await json_body(request)
    if unknown := body.keys() - _FIELDS.keys():
        raise BadRequest(
            f"unknown field {min(unknown)[:100]!r}; allowed: {', '.join(_FIELDS)}",
            param=min(unknown)[:100],
        )
    library = request.app[LIBRARY]
    await library.refresh()
    _check_names(library.catalog, body)
    fields = {_FIELDS[name]: value for name, value in body.items()}
    if fields.get("expires") is not None:
        fields["expires"] = _time(fields["expires"])
    return fields


def _time(value: object) -> datetime:
    """A time (ISO 8601, with its zone), or how long from now (``30d``)."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is not None:
                return moment.astimezone(UTC)
        except (ValueError, OverflowError):
            pass  # a duration, perhaps
    try:
        return time_after(parse_duration(value))
    except ValueError:
        raise BadRequest(
            "expires must be a duration like 30d, a time like 2030-12-31T00:00:00Z, or null for "
            "never",
            param="expires",
        ) from None


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


def _days(request: web.Request) -> int:
    text = request.query.get("days", "30")
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_DAYS):
        raise BadRequest(f"`days` must be a whole number from 1 to {MAX_DAYS}", param="days")
    return int(text)


# --- what goes out ---------------------------------------------------------------------------


def _shown(record: KeyRecord) -> JsonObject:
    """A key as JSON: everything but its hash."""
    return {
        "id": record.id,
        "name": record.name,
        "description": record.description,
        "admin": record.admin,
        "state": state_of(record, datetime.now(UTC)),
        "created": _text(record.created),
        "expires": _text(record.expires),
        "revoked": _text(record.revoked),
        "lastActivity": _text(record.last_activity),
        "models": record.models,
        "personalities": record.personalities,
        "defaultPersonality": record.default_personality,
        "limits": record.limits,
        "imported": record.imported,
    }


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _second(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _names(ring: KeyRing) -> Mapping[str, str]:
    nobody = {principal.key_id: principal.name for principal in (ANONYMOUS, LOCAL_ADMIN)}
    return nobody | {record.id: record.name for record in ring.records}
