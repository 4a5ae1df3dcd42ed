"""aiohttp's runner, with the fast JSON protocol before it."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from gateway.config.settings import LimitSettings
from gateway.http.aiohttp_connection import AiohttpConnection
from gateway.http.client_connection import ClientConnection
from gateway.http.connections import Connections
from gateway.http.entrance import Entrance
from gateway.http.fast_listener import FastListener, FastRoutes


class Runner(web.AppRunner):
    """An ``AppRunner`` whose connections are counted and timed by ``connections``.

    They begin with the fast JSON protocol, which serves ``routes``; ``handler`` are options of the
    ``RequestHandler`` of those that it hands over. ``AppRunner.server`` is public: what makes the
    protocol of each new connection.
    """

    __slots__ = ("_connections", "_entrance", "_handler", "_limits", "_routes")

    def __init__(
        self,
        app: web.Application,
        *,
        connections: Connections,
        routes: FastRoutes,
        limits: LimitSettings,
        handler: dict[str, Any],
        **options: Any,
    ) -> None:
        super().__init__(app, **options)
        self._connections = connections
        self._routes = routes
        self._limits = limits
        self._handler = handler
        self._entrance: Entrance | None = None

    @property
    def entrance(self) -> Entrance:
        """The factory of connections' protocols; there is none before ``setup()``."""
        assert self._entrance is not None
        return self._entrance

    @property
    def server(self) -> Any:
        """The :class:`Entrance`; ``None`` before ``setup()``."""
        server = super().server
        if server is None:
            return None
        if self._entrance is None:
            loop, options = asyncio.get_running_loop(), self._handler
            connections = self._connections

            def make(client: ClientConnection) -> AiohttpConnection:
                return AiohttpConnection(server, client, connections, loop=loop, **options)

            self._entrance = Entrance(FastListener(self._routes, connections, self._limits, make))
        return self._entrance

    async def cleanup(self) -> None:
        """End every connection."""
        for site in self.sites:
            await site.stop()  # nobody new comes while those that are here go
        if self._entrance is not None:
            await self._entrance.close()
        await super().cleanup()
