"""``GET /admin/status``: everything that is going on, for ``llm-gateway status`` and for pages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import Any, Final

import orjson
from aiohttp import web

from gateway import __version__
from gateway.access.accounting import ACCOUNTING, UnderWay
from gateway.access.principal import WITHOUT_KEY
from gateway.access.request_log import Record, path_of
from gateway.api.app_keys import GATE, LIBRARY, LIFECYCLE, SCHEDULER
from gateway.api.classic import json_response
from gateway.api.events import endless
from gateway.api.route import needs
from gateway.errors import BadRequest
from gateway.scope import Scope

#: Seconds: it is asked for every second, and a look may wake up a GPU's driver.
_SEEN_WITHIN: Final = 5.0
#: Seconds between two events, at least and at most.
OFTEN, SELDOM = 0.2, 60.0
#: How many ended requests it tells of, and at most how many that are under way.
_RECENT: Final = 50
_UNDER_WAY: Final = 200


@needs(Scope.ADMIN)
async def gateway_status(request: web.Request) -> web.StreamResponse:
    """GET /admin/status: machine, models, requests under way and the last ones, of all keys.

    ``?follow=true``: the same as events, one at once and then one every ``every`` seconds (1).
    Counters of ``usage`` begin anew with the gateway.
    """
    if request.query.get("follow", "").lower() not in ("true", "1"):
        return json_response(await _overview(request.app))
    return await endless(request, _looks(request.app, every(request)))


def every(request: web.Request) -> float:
    """Seconds between two events, of ``?every=``. Raises :class:`BadRequest`."""
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


async def _looks(app: web.Application, pause: float) -> AsyncGenerator[str, None]:
    while True:
        yield orjson.dumps(await _overview(app)).decode()
        await asyncio.sleep(pause)


async def _overview(app: web.Application) -> dict[str, Any]:
    machine = await machine_of(app)
    scheduler, library, accounting = app[SCHEDULER], app[LIBRARY], app[ACCOUNTING]
    common = library.choices.common
    recent, under_way = accounting.recent[-_RECENT:], accounting.under_way
    names = _names_of({record.key_id for record in recent}, app)
    return {
        "version": __version__,
        "uptime": round(accounting.seconds, 1),
        "ready": app[LIFECYCLE].ready,
        "urls": list(app[LIFECYCLE].urls),
        "in_flight": scheduler.in_flight,
        "active": common._asdict() if common else None,
        "models_file_error": library.broken,
        "machine": machine,
        "models": [
            {**asdict(status), "usage": accounting.total(status.name)._asdict()}
            for status in scheduler.status()
        ],
        "requests": {
            "under_way": [_going(one) for one in under_way[:_UNDER_WAY]],
            "not_shown": max(len(under_way) - _UNDER_WAY, 0),
            "recent": [as_json(record, names.get(record.key_id)) for record in recent],
        },
    }


async def machine_of(app: web.Application) -> dict[str, Any] | None:
    """Its devices, and what is free of them; ``None`` until they have been looked at once."""
    scheduler = app[SCHEDULER]
    await scheduler.see_memory(within=_SEEN_WITHIN)
    capacity = scheduler.accounts.capacity if scheduler.accounts is not None else None
    return capacity.report() if capacity is not None else None


def as_json(record: Record, name: str | None) -> dict[str, Any]:
    """A request that has ended; ``name`` is that of its key. Nothing of what was said is in it."""
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


def _names_of(key_ids: set[str], app: web.Application) -> dict[str, str]:
    """Names of keys, revoked ones too; none as long as the keys have not been read."""
    ring = app[GATE].ring
    if ring is None:
        return WITHOUT_KEY
    known = {key_id: name for key_id in key_ids if (name := ring.name_of(key_id)) is not None}
    return {**WITHOUT_KEY, **known}
