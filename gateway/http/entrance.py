"""What all connections of one listener share: the routes of the front door, and their end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from aiohttp import web

from gateway.api.context import SETTINGS
from gateway.api.parts import PARTS
from gateway.http.client_connection import Line
from gateway.http.fast_json import MAX_BODY, Front
from gateway.http.heads import Heads
from gateway.http.request import AnyHandler

if TYPE_CHECKING:
    from gateway.http.connections import Connections

#: Seconds for answers that are written, and not at their clients yet, when the gateway ends.
_GRACE = 1.0
#: The requests served here, by their targets: POST, a model named in a JSON body.
ROUTES: web.AppKey[dict[bytes, AnyHandler]] = web.AppKey("front_routes", dict)


class Entrance:
    """What all connections of one listener share.

    ``routes``: the handlers of POST requests, by their exact targets. ``make``: what serves a
    connection that is handed over.
    """

    def __init__(
        self,
        app: web.Application,
        routes: Mapping[bytes, AnyHandler],
        connections: Connections,
        make: Callable[[Line], asyncio.Protocol],
    ) -> None:
        self.connections = connections
        self.make = make
        limits = app[SETTINGS].limits
        self.heads = Heads(routes, app.get(PARTS), limits, min(MAX_BODY, limits.max_body))
        self.open: set[Front] = set()
        self.loop = asyncio.get_running_loop()
        #: What is waited for in the end: that there is no connection any more.
        self.emptied: asyncio.Future[None] | None = None

    def __call__(self) -> Front:
        """The protocol of a new connection."""
        return Front(self)

    def left(self, front: Front) -> None:
        """A connection is not here any more."""
        self.open.discard(front)
        if self.emptied is not None and not self.open and not self.emptied.done():
            self.emptied.set_result(None)

    async def close(self) -> None:
        """End what is still here, and what comes from now on."""
        self.emptied = self.loop.create_future()
        tasks = [front.end() for front in list(self.open)]
        if running := [task for task in tasks if task is not None]:
            await asyncio.wait(running)
        if self.open:
            await asyncio.wait([self.emptied], timeout=_GRACE)
        for front in list(self.open):
            front.abort()
