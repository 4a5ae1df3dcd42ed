"""What handlers find in the application, under typed keys."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from gateway.access.gate import KeyGate
from gateway.backends.facts import Headers
from gateway.backends.scheduler import Scheduler
from gateway.config.settings import Settings
from gateway.http.lifecycle import Lifecycle
from gateway.library import Library


@dataclass(slots=True)
class ErrorLog:
    """The last backend errors, for ``GET /chat/errors``: newest last."""

    entries: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=100))

    def add(self, message: str, *, code: str, model: str | None, request_id: str | None) -> None:
        """Remember one. Messages hold no prompt and no key."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.entries.append(
            {
                "time": now,
                "message": message,
                "code": code,
                "model": model,
                "request_id": request_id,
            }
        )


SETTINGS = web.AppKey("settings", Settings)
SCHEDULER = web.AppKey("scheduler", Scheduler)
LIBRARY = web.AppKey("library", Library)
HEADERS = web.AppKey("headers", Headers)
GATE = web.AppKey("gate", KeyGate)
ERRORS = web.AppKey("errors", ErrorLog)
LIFECYCLE = web.AppKey("lifecycle", Lifecycle)
