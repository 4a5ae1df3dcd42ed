"""GET /admin/system/history: memory and load over time."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from gateway.errors import BadRequest
from gateway.history import History
from gateway.http.json_response import json_response
from gateway.pipeline.route import Routes, Row
from gateway.quantities import parse_duration
from gateway.samples import WEEK, Sample
from gateway.scope import Scope

#: The shortest time that may be asked for, in seconds.
_LEAST: Final = 60.0


class HistoryHandlers:
    """Shows memory and load over time."""

    def __init__(self, history: History) -> None:
        self._history = history

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        return (Row("GET", "/admin/system/history", self.system_history, Scope.ADMIN),)

    async def system_history(self, request: web.Request) -> web.Response:
        """GET /admin/system/history: memory of devices, models and gateway, requests and tokens/s.

        ``?range=``: how far back, like `1h` (so it is without), `24h` or `7d`, which is the most.
        Up to an hour there is a sample every 10 seconds, beyond that one every 5 minutes, with the
        most memory of those. The last one is of this moment. Each list has one value for each of
        `times`.
        """
        seconds = _range(request)
        history = self._history
        now = await history.now()
        every, samples = history.samples.since(now.at - seconds, now.at)
        at = _shown(now)
        samples = [*(one for one in samples if _shown(one) < at), now]
        return json_response(_report(history, seconds, every, samples))


def _report(history: History, seconds: float, every: int, samples: list[Sample]) -> dict[str, Any]:
    used = [dict(one.used) for one in samples]
    return {
        "range": seconds,
        "every": every,
        "times": [_shown(one) for one in samples],
        "devices": [
            {
                "name": name,
                "description": description,
                "total": total,
                "used": [each.get(name) for each in used],
            }
            for name, (description, total) in history.devices.items()
            if any(name in each for each in used)
        ],
        "gateway_memory": [one.gateway for one in samples],
        "models_memory": [one.models for one in samples],
        "running": [one.running for one in samples],
        "waiting": [one.waiting for one in samples],
        "prompt_tokens_per_second": [round(one.prompt, 2) for one in samples],
        "completion_tokens_per_second": [round(one.completion, 2) for one in samples],
    }


def _shown(sample: Sample) -> float:
    """Return when it was taken, as it is told: to the millisecond."""
    return round(sample.at, 3)


def _range(request: web.Request) -> float:
    try:
        seconds = parse_duration(request.query.get("range", "1h"))
    except ValueError:
        seconds = 0.0
    if not _LEAST <= seconds <= WEEK:
        raise BadRequest(
            "`range` must be a duration from 1m to 7d, like 30m, 1h or 24h", param="range"
        )
    return seconds
