"""Requests to models, of all keys: running ones, ended ones, and cancelling one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

import orjson
from aiohttp import web

from gateway.access.accounting import Accounting, UnderWay
from gateway.access.gate import KeyGate
from gateway.access.past_requests import CACHED_FROM, CachedFrom, PastRequest, RequestFilter
from gateway.access.principal import WITHOUT_KEY
from gateway.access.request_log import Page, path_of
from gateway.api.overview import every
from gateway.backends.backend import State
from gateway.backends.scheduler import Scheduler
from gateway.errors import BadRequest, Cancelled, NotFound
from gateway.http.csv_response import csv_response, wants_csv
from gateway.http.json_response import json_response
from gateway.pipeline.events import endless
from gateway.pipeline.request_context import CONTEXT
from gateway.pipeline.route import Routes, Row
from gateway.quantities import whole_number
from gateway.scope import Scope

#: How many ended requests are in one answer, by default and at most.
LIMIT: Final = 50
MOST: Final = 500
#: How many requests under way are listed at most.
_UNDER_WAY: Final = 200
#: The fields whose change is worth an event, besides ended requests.
_CHANGING: Final = ("under_way", "not_shown", "lost", "problem")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: The pattern of ``status``: one status, or a class of them.
STATUS: Final = "([1-5]xx|[1-5][0-9][0-9])"
_NUMBERS: Final = range(100, 600)
#: The values of ``cached_from``; ``none``: nothing was cached, or it isn't known where.
_PLACES: Final[Mapping[str, CachedFrom | None]] = MappingProxyType(
    {**{place: place for place in CACHED_FROM}, "none": None}
)
#: The pattern of ``cached_from``.
PLACE: Final = "({})".format("|".join(_PLACES))
#: The columns of ended requests as CSV, and the name of the file.
CSV_COLUMNS: Final = tuple(
    "id started ended key name model personality method route streamed client status code seconds "
    "queue load prefill generation prompt_tokens cached_tokens cached_from completion_tokens "
    "tokens_per_second slot task".split()
)
_FILE: Final = "requests.csv"


class RequestHandlers:
    """Lists requests to models, and cancels them."""

    def __init__(self, gate: KeyGate, accounting: Accounting, scheduler: Scheduler) -> None:
        self._gate = gate
        self._accounting = accounting
        self._scheduler = scheduler

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        return (
            Row("GET", "/admin/requests", self.list_requests, Scope.ADMIN),
            Row("DELETE", "/admin/requests/{id}", self.cancel_request, Scope.ADMIN),
        )

    async def list_requests(self, request: web.Request) -> web.StreamResponse:
        """GET /admin/requests: requests to models that are under way, and those that have ended.

        The newest first; older ones by ``cursor``, the ``next`` of the answer before. ``key`` (its
        id or name) and ``model`` choose among all of them; ``status`` (``200``, ``4xx``, several
        with commas), ``slow`` (seconds that it took at least) and ``cached_from`` (``slot``,
        ``disk``, ``none``) among those that have ended, which ``?format=csv`` has as CSV. As
        events with ``Accept: text/event-stream`` or ``?follow=true``: the first has the same, each
        of the others what is under way then, and what has ended since the one before, or, with a
        `next`, again the same as the first: then others may have ended in between. Nothing of what
        was said is in them.
        """
        wanted = self._wanted(request)
        if wants_csv(request):
            return self._as_csv(request, await self._accounting.log.page(wanted))
        follows = request.query.get("follow", "").lower() in ("true", "1")
        if follows or "text/event-stream" in request.headers.get("Accept", ""):
            if wanted.before is not None:
                raise BadRequest(
                    "`cursor` is for pages: events begin with the newest", param="cursor"
                )
            return await endless(request, self._events(wanted, every(request)))
        return json_response(self._told(wanted, await self._accounting.log.page(wanted)))

    def _as_csv(self, request: web.Request, page: Page) -> web.Response:
        ended = [self._ended(one) for one in page.requests]
        response = csv_response(CSV_COLUMNS, ({**one, **one["timings"]} for one in ended), _FILE)
        if page.more:
            query = {**request.query, "cursor": str(page.requests[-1].seq)}
            query.pop("authKey", None)
            response.headers["Link"] = f'<{request.rel_url.with_query(query)}>; rel="next"'
        return response

    async def cancel_request(self, request: web.Request) -> web.Response:
        """DELETE /admin/requests/ID: cancel one that is under way; its client is told so."""
        request_id = request.match_info["id"]
        services = request[CONTEXT].services
        open_ids = {one.id for one in self._accounting.under_way}
        error = Cancelled("this request was cancelled by an administrator")
        if request_id in open_ids and services.standing.end(request_id, error):
            return web.Response(status=204)
        ended = any(record.id == request_id for record in self._accounting.recent)
        what = "has ended already" if ended else "is not under way: it has ended, or never was"
        raise NotFound(
            f"the request {request_id[:100]!r} {what}", code="request_not_found", param="id"
        )

    def _told(self, wanted: RequestFilter, page: Page) -> dict[str, Any]:
        return {
            **self._under_way(wanted),
            "ended": [self._ended(one) for one in page.requests],
            "next": str(page.requests[-1].seq) if page.more else None,
            "kept": self._accounting.log.kept,
            "lost": self._accounting.log.lost,
            "problem": page.problem,
        }

    async def _events(self, wanted: RequestFilter, pause: float) -> AsyncGenerator[str, None]:
        log = self._accounting.log
        seen, page = log.added, await log.page(wanted)
        told = self._told(wanted, page)
        yield orjson.dumps(told).decode()
        while True:
            await asyncio.sleep(pause)
            new, before = log.since(seen), told
            seen = log.added
            if new is None or page.unread:
                page = await log.page(wanted)
                told = self._told(wanted, page)
                changed = told != before
            else:
                new = [one for one in new if wanted.has(one)]
                told = {
                    **self._under_way(wanted),
                    "ended": [self._ended(one) for one in new],
                    "lost": log.lost,
                    "problem": log.problem,
                }
                changed = bool(new) or any(told[name] != before[name] for name in _CHANGING)
            if changed:
                yield orjson.dumps(told).decode()

    def _wanted(self, request: web.Request) -> RequestFilter:
        query = request.query
        key = query.get("key")
        key_ids = None
        if key is not None:
            key_ids = self._ids_of(key)
        return RequestFilter(
            limit=_whole(request, "limit", 1, MOST) or LIMIT,
            before=_whole(request, "cursor", 0, 2**63 - 1),
            key_ids=key_ids,
            model=query.get("model"),
            statuses=_statuses(request),
            slow=_slow(request),
            cached_from=_places(request),
        )

    def _ids_of(self, key: str) -> frozenset[str]:
        """Return the ids that ``key`` means: it is one, or the name of some.

        That of a principal without a key means that one: keys of that name are asked for by id.
        """
        if key in WITHOUT_KEY:
            return frozenset({key})
        ring = self._gate.ring
        others = {key_id for key_id, name in WITHOUT_KEY.items() if name == key}
        return frozenset({key, *others, *(ring.named(key) if ring is not None else ())})

    def _under_way(self, wanted: RequestFilter) -> dict[str, Any]:
        every_one = [
            one
            for one in self._accounting.under_way
            if (wanted.key_ids is None or one.key_id in wanted.key_ids)
            and (wanted.model is None or one.model == wanted.model)
        ]
        return {
            "under_way": [self._going(one) for one in every_one[:_UNDER_WAY]],
            "not_shown": max(len(every_one) - _UNDER_WAY, 0),
        }

    def _ended(self, one: PastRequest) -> dict[str, Any]:
        ended, ring = one.seq / 1e6, self._gate.ring
        name = WITHOUT_KEY.get(one.key_id)
        if name is None and ring is not None:
            name = ring.name_of(one.key_id)
        return {
            "id": one.id,
            "started": _time(ended - one.seconds),
            "ended": _time(ended),
            "key": one.key_id,
            "name": name,
            "model": one.model,
            "personality": one.personality,
            "method": one.method,
            "route": one.route,
            "streamed": one.streamed,
            "client": one.client,
            "status": one.status,
            "code": one.code,
            "stage": None,
            "percent": None,
            "position": None,
            "seconds": round(one.seconds, 3),
            "timings": _rounded(one.queue, one.load, one.prefill, one.generation),
            "prompt_tokens": one.prompt_tokens,
            "cached_tokens": one.cached_tokens,
            "cached_from": one.cached_from,
            "completion_tokens": one.completion_tokens,
            "tokens_per_second": one.tokens_per_second,
            "slot": one.slot,
            "task": one.task,
        }

    def _going(self, one: UnderWay) -> dict[str, Any]:
        """Return a request that is under way, in the shape of those that have ended."""
        slot, task = self._accounting.log.tasks(one.id) or (None, None)
        return {**_so_far(one, self._scheduler), "slot": slot, "task": task}


# --- what comes in ---------------------------------------------------------------------------


def _whole(request: web.Request, name: str, least: int, most: int) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    number = whole_number(text)
    if number is None or not least <= number <= most:
        what = "the `next` of an answer" if name == "cursor" else f"from {least} to {most}"
        raise BadRequest(f"`{name}` must be a whole number, {what}", param=name)
    return number


def _slow(request: web.Request) -> float | None:
    text = request.query.get("slow")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise BadRequest("`slow` must be a number of seconds, 0 or more", param="slow")
    return seconds


def _statuses(request: web.Request) -> tuple[tuple[int, int], ...] | None:
    text = request.query.get("status")
    if text is None:
        return None
    ranges: dict[tuple[int, int], None] = {}  # each once: SQLite takes no thousand of them
    for part in text.lower().split(","):
        if part.isascii() and part.isdigit() and len(part) == 3 and int(part) in _NUMBERS:
            ranges[int(part), int(part)] = None
        elif len(part) == 3 and part[1:] == "xx" and part[0] in "12345":
            ranges[int(part[0]) * 100, int(part[0]) * 100 + 99] = None
        else:
            raise BadRequest(
                "`status` must be a status like 200, a class of them like 4xx, or several of "
                "these with commas between them",
                param="status",
            )
    return tuple(ranges)


def _places(request: web.Request) -> frozenset[CachedFrom | None] | None:
    text = request.query.get("cached_from")
    if text is None:
        return None
    named = text.lower().split(",")
    if not {*named} <= {*_PLACES}:
        raise BadRequest(
            f"`cached_from` must be one of {', '.join(_PLACES)}, or several of these with commas "
            "between them",
            param="cached_from",
        )
    return frozenset(_PLACES[name] for name in named)


# --- what goes out ---------------------------------------------------------------------------


def _so_far(one: UnderWay, scheduler: Scheduler) -> dict[str, Any]:
    stage, percent, position = _stage(one, scheduler)
    writing = one.seconds - one.began if one.began is not None else 0.0
    return {
        "id": one.id,
        "started": _time(time.time() - one.seconds),
        "ended": None,
        "key": one.key_id,
        "name": one.key_name,
        "model": one.model,
        "personality": one.personality,
        "method": one.method,
        "route": path_of(one.route),
        "streamed": one.streamed,
        "client": one.client,
        "status": None,
        "code": None,
        "stage": stage,
        "percent": percent,
        "position": position,
        "seconds": round(one.seconds, 3),
        "timings": _timings(one, stage, scheduler),
        "prompt_tokens": None,
        "cached_tokens": None,
        "cached_from": None,
        "completion_tokens": one.tokens,
        "tokens_per_second": round(one.tokens / writing, 2) if one.tokens and writing > 0 else None,
    }


def _stage(one: UnderWay, scheduler: Scheduler) -> tuple[str, int | None, int | None]:
    """Return the stage of a request, how much of it is done in percent, and its place in the queue.

    An answer that isn't streamed shows no progress: its stage is ``answering``.
    """
    backend = scheduler.backend(one.model) if one.model is not None else None
    waits = not one.sent and one.waited is None and one.began is None
    if waits and backend is not None and one.model is not None:
        place = scheduler.place(one.model, one.task) if one.task is not None else None
        if backend.state is State.STARTING:
            progress = backend.progress
            return "loading", None if progress is None else int(100 * progress), place
        if place is not None or one.task is None:
            return "queued", None, place
    if one.tokens:
        return "generating", None, None
    return "prefill" if one.streamed else "answering", None, None


def _timings(one: UnderWay, stage: str, scheduler: Scheduler) -> dict[str, float | None]:
    """Return the seconds of each stage so far; ``None``: not begun, or unknown."""
    waited, load = one.waited or 0.0, one.loading
    if stage in ("queued", "loading"):
        waited = one.seconds
        backend = scheduler.backend(one.model) if one.model is not None else None
        load = backend.starting_within(time.monotonic() - waited) if backend is not None else 0.0
    load = min(load, waited)
    prefill: float | None = None
    generation: float | None = None
    if stage == "answering":
        generation = one.seconds - waited
    elif stage in ("prefill", "generating"):
        began = one.began if one.began is not None else one.seconds
        prefill, generation = max(0.0, began - waited), max(0.0, one.seconds - began)
    return _rounded(waited - load, load, prefill, generation)


def _rounded(
    queue: float, load: float, prefill: float | None, generation: float | None
) -> dict[str, float | None]:
    return {
        "queue": round(queue, 3),
        "load": round(load, 3),
        "prefill": None if prefill is None else round(prefill, 3),
        "generation": None if generation is None else round(generation, 3),
    }


def _time(seconds: float) -> str:
    """Return seconds since 1970 as ``2030-12-31T23:59:59.123Z``."""
    moment = _EPOCH + timedelta(milliseconds=round(seconds * 1000))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
