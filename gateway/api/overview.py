"""``GET /admin/status``: everything that is going on, for ``llm-gateway status`` and the page."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiohttp import web

from gateway import __version__
from gateway.access.accounting import Accounting, UnderWay
from gateway.access.gate import KeyGate
from gateway.access.principal import WITHOUT_KEY
from gateway.access.request_log import Record, path_of
from gateway.api.model_states import prompt_cache
from gateway.backends.machine_report import machine_report, nodes_report
from gateway.backends.scheduler import Scheduler
from gateway.errors import BadRequest
from gateway.http.json_response import json_response
from gateway.http.lifecycle import Lifecycle
from gateway.library import Library
from gateway.pipeline.events import endless
from gateway.pipeline.route import Routes, Row
from gateway.scope import Scope

if TYPE_CHECKING:
    from gateway.conversations.keeper import Conversations

#: The least and the most seconds between two events.
OFTEN, SELDOM = 0.2, 60.0
#: How many ended requests are listed, and at most how many under way.
_RECENT: Final = 50
_UNDER_WAY: Final = 200


class StatusHandlers:
    """Shows what is going on."""

    def __init__(
        self,
        gate: KeyGate,
        accounting: Accounting,
        library: Library,
        scheduler: Scheduler,
        lifecycle: Lifecycle,
        conversations: Conversations | None = None,
    ) -> None:
        self._gate = gate
        self._accounting = accounting
        self._library = library
        self._scheduler = scheduler
        self._lifecycle = lifecycle
        self._conversations = conversations

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        return (Row("GET", "/admin/status", self.gateway_status, Scope.ADMIN),)

    async def gateway_status(self, request: web.Request) -> web.StreamResponse:
        """GET /admin/status: machine, models, requests under way and the last ones, of all keys.

        ``?follow=true``: the same as events, one at once and then one every ``every`` seconds (1).
        Counters of ``usage`` begin anew with the gateway.
        """
        if request.query.get("follow", "").lower() not in ("true", "1"):
            return json_response(await self._overview())
        return await endless(request, self._looks(every(request)))

    async def _looks(self, pause: float) -> AsyncGenerator[str, None]:
        while True:
            yield orjson.dumps(await self._overview()).decode()
            await asyncio.sleep(pause)

    async def _overview(self) -> dict[str, Any]:
        machine = await machine_report(self._scheduler)
        scheduler, library, accounting = self._scheduler, self._library, self._accounting
        common = library.choices.common
        recent, under_way = accounting.recent[-_RECENT:], accounting.under_way
        names = self._names_of({record.key_id for record in recent})
        return {
            "version": __version__,
            "uptime": round(accounting.seconds, 1),
            "ready": self._lifecycle.ready,
            "urls": list(self._lifecycle.urls),
            "in_flight": scheduler.in_flight,
            "active": common._asdict() if common else None,
            "models_file_error": library.broken,
            "machine": machine,
            "nodes": nodes_report(scheduler.environment.nodes),
            "models": [
                {
                    **asdict(status),
                    "usage": accounting.total(status.name)._asdict(),
                    **prompt_cache(self._conversations, status.name),
                }
                for status in scheduler.status()
            ],
            "requests": {
                "under_way": [_going(one) for one in under_way[:_UNDER_WAY]],
                "not_shown": max(len(under_way) - _UNDER_WAY, 0),
                "recent": [as_json(record, names.get(record.key_id)) for record in recent],
            },
        }

    def _names_of(self, key_ids: set[str]) -> dict[str, str]:
        """Return the names of keys, revoked ones too; none until the keys have been read."""
        ring = self._gate.ring
        if ring is None:
            return WITHOUT_KEY
        known = {key_id: name for key_id in key_ids if (name := ring.name_of(key_id)) is not None}
        return {**WITHOUT_KEY, **known}


def every(request: web.Request) -> float:
    """Return the seconds between two events, from ``?every=``. Raises :class:`BadRequest`."""
    text = request.query.get("every", "1")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not OFTEN <= seconds <= SELDOM:
        raise BadRequest(
            f"`every` must be a number of seconds from {OFTEN:g} to {SELDOM:g}", param="every"
        )
    return seconds


def as_json(record: Record, name: str | None) -> dict[str, Any]:
    """Return a request that has ended, without what was said in it; ``name``: its key's."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.at)),
        "key": record.key_id,
        "name": name,
        "model": record.model,
        "personality": record.personality,
        "route": path_of(record.route),
        "status": record.status,
        "seconds": round(record.seconds, 3),
        **record.usage._asdict(),
        "cached_from": record.cached_from,
    }


def _going(one: UnderWay) -> dict[str, Any]:
    return {
        "id": one.id,
        "key": one.key_id,
        "name": one.key_name,
        "model": one.model,
        "personality": one.personality,
        "route": path_of(one.route),
        "seconds": round(one.seconds, 3),
        "stage": "waiting" if not one.sent else "writing" if one.tokens else "reading",
        "completion_tokens": one.tokens,
    }
