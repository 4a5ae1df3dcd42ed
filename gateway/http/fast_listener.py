"""The shared state of the fast connections of one listener."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from multidict import CIMultiDict

from gateway.config.settings import LimitSettings
from gateway.http.answer_headers import AnswerHeaders
from gateway.http.client_connection import ClientConnection
from gateway.http.connections import Connections
from gateway.http.heads import Heads
from gateway.http.lifecycle import Lifecycle
from gateway.http.request import Endpoint

#: Bytes. A longer body goes to aiohttp.
MAX_BODY = 64 * 1024


class Open(Protocol):
    """A connection that the fast JSON protocol serves."""

    def end(self) -> asyncio.Task[None] | None:
        """Close, at once if nothing is on its way out; the task to wait for, if one was running."""

    def abort(self) -> None:
        """Close at once."""


@dataclass(frozen=True, slots=True)
class FastRoutes:
    """The routes of an application that the fast JSON protocol serves.

    ``find``: what answers a POST with this target and these headers, or None.
    """

    find: Callable[[bytes, CIMultiDict[str]], Endpoint | None]
    answer_headers: AnswerHeaders
    lifecycle: Lifecycle


class FastListener:
    """The shared state of the connections of one port. ``make``: makes the protocol of a connection
    that is handed over to aiohttp.
    """

    def __init__(
        self,
        routes: FastRoutes,
        connections: Connections,
        limits: LimitSettings,
        make: Callable[[ClientConnection], asyncio.Protocol],
    ) -> None:
        self.connections = connections
        self.make = make
        self.lifecycle = routes.lifecycle
        self.heads = Heads(
            routes.find, routes.answer_headers, limits, min(MAX_BODY, limits.max_body)
        )
        self.open: set[Open] = set()
        self.loop = asyncio.get_running_loop()
        #: Done when there is no connection any more: the end waits for it.
        self.emptied: asyncio.Future[None] | None = None

    def left(self, connection: Open) -> None:
        """A connection is not here any more."""
        self.open.discard(connection)
        if self.emptied is not None and not self.open and not self.emptied.done():
            self.emptied.set_result(None)
