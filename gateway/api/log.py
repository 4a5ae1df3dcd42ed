"""GET /admin/log: the gateway's own log, as far back as it is kept in memory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Final

from aiohttp import web

from gateway.errors import BadRequest
from gateway.http.json_response import json_response
from gateway.log_tail import MOST, LogTail
from gateway.logs import log_tail
from gateway.pipeline.events import endless
from gateway.pipeline.route import Routes, Row
from gateway.plurals import counted
from gateway.quantities import whole_number
from gateway.scope import Scope

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
#: How many earlier lines are shown by default.
LINES: Final = 1000
#: The most lines in one event.
_AT_ONCE: Final = 500


class LogHandlers:
    """Shows the gateway's own log."""

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        return (Row("GET", "/admin/log", self.gateway_log, Scope.ADMIN),)

    async def gateway_log(self, request: web.Request) -> web.StreamResponse:
        """GET /admin/log: the gateway's own log, then what is added to it, as events.

        Each line is one ``data:``; an event has one or more. ``?follow=false``: what there is, as
        ``{"lines": [...]}``. ``?level=warning``: only lines of that level and above; ``?lines=``:
        how many of those before, 1000 without.
        """
        level, lines = _level(request), _lines(request)
        tail = log_tail()
        if request.query.get("follow", "").lower() in ("false", "0"):
            return json_response({"lines": [one.text for one in tail.newest(lines, level=level)]})
        return await endless(request, _follow(tail, level, lines))


async def _follow(tail: LogTail, level: int, lines: int) -> AsyncGenerator[str, None]:
    loop, news = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody looks any more
            loop.call_soon_threadsafe(news.set)

    stop = tail.listen(tell)
    try:
        seen = tail.total
        found = tail.newest(lines, level=level)
        seen = max(seen, found[-1].number if found else 0)
        while True:
            for start in range(0, len(found), _AT_ONCE):
                yield "\n".join(one.text for one in found[start : start + _AT_ONCE])
            await news.wait()
            news.clear()
            total = tail.total
            found, gone = tail.after(seen, level=level)
            seen = max(total, found[-1].number if found else 0)
            if gone:
                yield f"... {counted(gone, 'line')} left out: the reader is too slow ..."
    finally:
        stop()


def _level(request: web.Request) -> int:
    name = request.query.get("level", LEVELS[0]).lower()
    if name not in LEVELS:
        raise BadRequest(f"`level` must be one of {', '.join(LEVELS)}", param="level")
    return logging.getLevelNamesMapping()[name.upper()]


def _lines(request: web.Request) -> int:
    number = whole_number(request.query.get("lines", str(LINES)))
    if number is None or not 1 <= number <= MOST:
        raise BadRequest(f"`lines` must be a number from 1 to {MOST}", param="lines")
    return number
