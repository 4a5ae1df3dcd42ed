"""A key's view of itself: its name, what it may use, and what it has used."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from gateway.access.accounting import Accounting
from gateway.access.gate import KeyGate
from gateway.access.principal import Principal
from gateway.access.usage_report import added_up, as_csv, by_in, days_in
from gateway.http.csv_response import wants_csv
from gateway.http.json_response import json_response
from gateway.pipeline.request_context import CONTEXT
from gateway.pipeline.route import Routes, Row
from gateway.scope import Scope

#: What a key's own usage can be grouped by.
OWN_USAGE_BY = ("model", "day")


class OwnKeyHandlers:
    """Tells keys about themselves."""

    def __init__(self, gate: KeyGate, accounting: Accounting) -> None:
        self._gate = gate
        self._accounting = accounting

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        return (
            Row("GET", "/key", self.own_key, Scope.CHAT, counts=False),
            Row("GET", "/key/usage", self.own_usage, Scope.CHAT, counts=False),
        )

    async def own_key(self, request: web.Request) -> web.Response:
        """GET /key: who asks, and what that key may do; of its limits also what is left.

        ``models`` and ``personalities`` are null where it may use all. ``keys_needed`` is false
        where the gateway asks for none; then everybody is ``anonymous``.
        """
        principal = request[CONTEXT].principal
        limits, expires = principal.limits, principal.expires
        left = self._accounting.limiter.left(principal.key_id, limits)
        return json_response(
            {
                "id": principal.key_id,
                "name": principal.name,
                "description": self._description(principal),
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
                "keys_needed": self._gate.keys_needed,
            }
        )

    async def own_usage(self, request: web.Request) -> web.Response:
        """GET /key/usage?days=30: requests and tokens of the key that asks, by day and model.

        Days are those of UTC, and today is one of them. ``?by=day`` or ``model``: one row for each.
        With ``Accept: text/csv`` or ``?format=csv`` as CSV.
        """
        days, csv = days_in(request), wants_csv(request)
        by = by_in(request, OWN_USAGE_BY, "day,model")
        key_id = request[CONTEXT].principal.key_id
        usage = await self._accounting.usage(days=days, key_id=key_id)
        rows = added_up(usage, by, lambda key: None)
        return as_csv(rows, by, days) if csv else json_response({"days": days, "usage": rows})

    def _description(self, principal: Principal) -> str:
        ring = self._gate.ring
        record = ring.record(principal.key_id) if ring is not None else None
        return record.description if record is not None else ""


def _listed(names: frozenset[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


def _time(seconds: float) -> Any:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
