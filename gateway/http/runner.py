"""aiohttp's runner, with the front door before it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from gateway.http.aiohttp_connection import Connection
from gateway.http.client_connection import Line
from gateway.http.connections import Connections
from gateway.http.entrance import Entrance
from gateway.http.request import AnyHandler


class Runner(web.AppRunner):
    """An ``AppRunner`` whose connections are counted and timed by ``connections``.

    They begin at the front door, which serves ``routes``; ``handler`` are options of the
    ``RequestHandler`` of those that it hands over. ``AppRunner.server`` is public: what makes the
    protocol of each new connection.
    """

    __slots__ = ("_connections", "_entrance", "_handler", "_routes")

    def __init__(
        self,
        app: web.Application,
        *,
        connections: Connections,
        routes: Mapping[bytes, AnyHandler],
        handler: dict[str, Any],
        **options: Any,
    ) -> None:
        super().__init__(app, **options)
        self._connections = connections
        self._routes = routes
        self._handler = handler
        self._entrance: Entrance | None = None

    @property
    def server(self) -> Any:
        """The :class:`Entrance`; ``None`` before ``setup()``."""
        server = super().server
        if server is None:
            return None
        if self._entrance is None:
            loop, options = asyncio.get_running_loop(), self._handler

            def make(line: Line) -> Connection:
                return Connection(server, line, loop=loop, **options)

            self._entrance = Entrance(self.app, self._routes, self._connections, make)
        return self._entrance

    async def cleanup(self) -> None:
        """End every connection."""
        for site in self.sites:
            await site.stop()  # nobody new comes while those that are here go
        if self._entrance is not None:
            await self._entrance.close()
        await super().cleanup()
