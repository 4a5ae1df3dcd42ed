"""What a key may know of itself: who it is, what it may use, and what it has used."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from gateway.access.accounting import ACCOUNTING
from gateway.access.principal import Principal
from gateway.access.usage_report import added_up, as_csv, by_in, days_in, wants_csv
from gateway.api.app_keys import GATE, SETTINGS
from gateway.api.classic import json_response
from gateway.api.request_context import CONTEXT
from gateway.api.route import counts
from gateway.scope import Scope

#: What a key's own usage can be told by.
OWN_USAGE_BY = ("model", "day")


@counts(False)
async def own_key(request: web.Request) -> web.Response:
    """GET /key: who asks, and what that key may do; of its limits also what is left.

    ``models`` and ``personalities`` are null where it may use all. ``keys_needed`` is false where
    the gateway asks for none; then everybody is ``anonymous``.
    """
    app, principal = request.app, request[CONTEXT].principal
    limits, expires = principal.limits, principal.expires
    left = app[ACCOUNTING].limiter.left(principal.key_id, limits)
    return json_response(
        {
            "id": principal.key_id,
            "name": principal.name,
            "description": _description(app, principal),
            "admin": principal.may(Scope.ADMIN),
            "expires": None if expires is None else _time(expires),
            "models": _listed(principal.models),
            "personalities": _listed(principal.personalities),
            "defaultPersonality": principal.default_personality,
            "limits": {
                name: value
                for name in limits.__slots__
                if (value := getattr(limits, name)) is not None
            },
            "left": {
                name: {
                    "limit": one.limit,
                    "left": max(0, one.left),
                    "reset_seconds": None
                    if one.reset_seconds is None
                    else round(one.reset_seconds, 1),
                }
                for name, one in left.items()
            },
            "keys_needed": app[SETTINGS].auth.enabled,
        }
    )


@counts(False)
async def own_usage(request: web.Request) -> web.Response:
    """GET /key/usage?days=30: requests and tokens of the key that asks, by day and model.

    Days are those of UTC, and today is one of them. ``?by=day`` or ``model``: one row for each.
    With ``Accept: text/csv`` or ``?format=csv`` as CSV.
    """
    days, csv = days_in(request), wants_csv(request)
    by = by_in(request, OWN_USAGE_BY, "day,model")
    key_id = request[CONTEXT].principal.key_id
    usage = await request.app[ACCOUNTING].usage(days=days, key_id=key_id)
    rows = added_up(usage, by, lambda key: None)
    return as_csv(rows, by, days) if csv else json_response({"days": days, "usage": rows})


def _description(app: web.Application, principal: Principal) -> str:
    ring = app[GATE].ring
    record = ring.record(principal.key_id) if ring is not None else None
    return record.description if record is not None else ""


def _listed(names: frozenset[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


def _time(seconds: float) -> Any:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
