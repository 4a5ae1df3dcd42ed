"""The pipeline around the routes that aiohttp serves: its middleware, and heads of its answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import cast

from aiohttp import web

from gateway.errors import BadRequest
from gateway.http.aiohttp_connection import AiohttpConnection
from gateway.http.aiohttp_request import as_aiohttp
from gateway.http.request import Handler
from gateway.pipeline.reading import is_held_back, leave_expect
from gateway.pipeline.request_context import CONTEXT, RequestContext
from gateway.pipeline.route import Row
from gateway.pipeline.services import Services
from gateway.pipeline.steps import AiohttpRoute, Route, answer
from gateway.scope import Scope


class Edge:
    """The edge to aiohttp: it puts the pipeline around every request that aiohttp serves."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._nowhere = AiohttpRoute(self._any_other, services)
        self._routes: dict[web.AbstractRoute, Route] = {}

    def application(self, rows: Iterable[Row]) -> web.Application:
        """Return an application that serves ``rows``."""
        app = web.Application(
            client_max_size=self._services.limits.max_body, middlewares=[self.around]
        )
        app.on_response_prepare.append(self.on_prepare)
        for row in (*rows, self._any_other):
            # A complete answer becomes aiohttp's own in the middleware.
            handler = cast("Callable[[web.Request], Awaitable[web.StreamResponse]]", row.handler)
            route = AiohttpRoute(row, self._services)
            for method in ("HEAD", row.method) if row.head else (row.method,):
                added = app.router.add_route(method, row.path, handler, expect_handler=leave_expect)
                self._routes[added] = route
        return app

    @property
    def _any_other(self) -> Row:
        return Row("*", "/{path:.*}", self.nowhere, Scope.CHAT)

    @web.middleware
    async def around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a request through the pipeline: the only middleware of the application."""
        connection = request.protocol
        assert isinstance(connection, AiohttpConnection)
        connection.began(request)
        if request.version[0] != 1:  # 0.9 has no headers, 2 is another protocol
            connection.ended()
            return connection.refused(
                request, BadRequest("this server speaks HTTP/1.1", code="malformed_request")
            )
        context = request[CONTEXT] = RequestContext(
            self._services, request.headers.get("X-Personality")
        )
        # A path that is no path has a handler of aiohttp's own.
        route = self._routes.get(request.match_info.route, self._nowhere)
        try:
            answered = as_aiohttp(await answer(request, context, route))
        finally:
            connection.ended()
        if is_held_back(request):
            answered.force_close()  # or the body would have to be waited for (RFC 9110, 10.1.1)
        if request.writer.output_size and not answered.prepared and request.transport is not None:
            request.transport.abort()  # its stream failed, and must not look complete
        return answered

    async def on_prepare(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Complete the head of an answer that aiohttp is about to send."""
        assert isinstance(request, web.Request)
        self._services.answer_headers.decorate(request, request.get(CONTEXT), response.headers)
        if self._services.lifecycle.finishes:
            response.headers["Connection"] = "close"
            response.force_close()

    async def nowhere(self, request: web.Request) -> web.StreamResponse:
        """Raise that there is no route, or none for this method.

        aiohttp's own answer to that would ask for the body first.
        """
        addresses, allowed = self._services.addresses, set[str]()
        for resource in request.app.router.resources():
            if resource is not request.match_info.route.resource:
                allowed |= (await resource.resolve(request))[1]
        if allowed:
            raise addresses.not_for(request.method, request.path, ", ".join(sorted(allowed)))
        raise addresses.no_route(request.method, request.path)
