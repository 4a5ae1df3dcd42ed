"""What handlers find in the application, under typed keys."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from gateway.access.wrong_keys import WrongKeys
from gateway.backends.facts import Headers
from gateway.backends.scheduler import Scheduler
from gateway.config import Settings
from gateway.library import Library

if TYPE_CHECKING:
    from gateway.access.keys import KeyRing


class Door:
    """The key ring, once the store has been opened; requests that need it wait until then."""

    def __init__(self) -> None:
        self.ring: KeyRing | None = None
        self._open = asyncio.Event()
        #: The control socket's path: who can reach it is the owner of the data folder.
        self.control: str | None = None
        self.wrong_keys = WrongKeys()
        #: Called when a key may have come to be allowed less.
        self.rights_changed: Callable[[], None] = lambda: None

    def open(self, ring: KeyRing) -> None:
        """Keys can be checked from now on."""
        self.ring = ring
        ring.rights_changed = lambda: self.rights_changed()
        self._open.set()

    async def wait(self) -> KeyRing:
        """The ring, as soon as there is one."""
        await self._open.wait()
        assert self.ring is not None
        return self.ring


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


class Lifecycle:
    """Whether the gateway is coming, here or going, and who is being answered."""

    def __init__(self) -> None:
        self.ready = False
        self.stopping = asyncio.Event()
        #: Where clients on this machine reach it, like ``http://127.0.0.1:8080``.
        self.urls: Sequence[str] = ()
        #: Where plain HTTP is led to https.
        self.redirect_urls: Sequence[str] = ()
        self._active = 0  # requests, but for streams that never end by themselves (/status)
        self._quiet: asyncio.Event | None = None  # where somebody waits for it

    def enter(self) -> None:
        """A request has come, or an endless stream has ended."""
        self._active += 1

    def leave(self) -> None:
        """A request has been answered, or has turned out to be an endless stream."""
        self._active -= 1
        if not self._active and self._quiet is not None:
            self._quiet.set()

    async def quiet(self) -> None:
        """Return when no request is being answered."""
        while self._active:  # it may be again, in the moment until whoever waits is told
            self._quiet = self._quiet or asyncio.Event()
            self._quiet.clear()
            await self._quiet.wait()


SETTINGS = web.AppKey("settings", Settings)
SCHEDULER = web.AppKey("scheduler", Scheduler)
LIBRARY = web.AppKey("library", Library)
HEADERS = web.AppKey("headers", Headers)
DOOR = web.AppKey("door", Door)
ERRORS = web.AppKey("errors", ErrorLog)
LIFECYCLE = web.AppKey("lifecycle", Lifecycle)
