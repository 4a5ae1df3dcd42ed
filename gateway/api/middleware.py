"""aiohttp's side of the pipeline: what stands around its handlers, and around its answers."""

from __future__ import annotations

from aiohttp import web

from gateway.api.addresses import no_route, not_for
from gateway.api.pipeline import Route, answer
from gateway.api.reading import is_held_back
from gateway.api.request_context import CONTEXT, RequestContext
from gateway.api.services import SERVICES
from gateway.errors import BadRequest
from gateway.http.aiohttp_connection import AiohttpConnection
from gateway.http.aiohttp_request import as_aiohttp
from gateway.http.request import Handler

#: By their handlers.
PIPELINES: web.AppKey[dict[object, Route]] = web.AppKey("routes", dict)


@web.middleware
async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Around every handler of aiohttp's, also the one that answers 404."""
    connection = request.protocol
    assert isinstance(connection, AiohttpConnection)
    connection.began(request)
    if request.version[0] != 1:  # 0.9 has no headers, 2 is another protocol
        connection.ended()
        return connection.refused(
            request, BadRequest("this server speaks HTTP/1.1", code="malformed_request")
        )
    context = request[CONTEXT] = RequestContext(
        request.app[SERVICES], request.headers.get("X-Personality")
    )
    pipelines = request.app[PIPELINES]
    # A path that is no path has a handler of aiohttp's own.
    route = pipelines.get(handler) or pipelines[nowhere]
    try:
        answered = as_aiohttp(await answer(request, context, route))
    finally:
        connection.ended()
    if is_held_back(request):
        answered.force_close()  # or the body would have to be waited for (RFC 9110, 10.1.1)
    if request.writer.output_size and not answered.prepared and request.transport is not None:
        request.transport.abort()  # its stream failed, and must not look complete
    return answered


async def nowhere(request: web.Request) -> web.StreamResponse:
    """Where there is no route, or none for this method.

    aiohttp has an answer of its own for that, which would ask for the body first.
    """
    allowed: set[str] = set()
    for resource in request.app.router.resources():
        if resource is not request.match_info.route.resource:
            allowed |= (await resource.resolve(request))[1]
    if allowed:
        raise not_for(request, ", ".join(sorted(allowed)))
    raise no_route(request)


async def on_prepare(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """aiohttp is about to send the head of an answer."""
    assert isinstance(request, web.Request)
    answer_headers = request.app[SERVICES].answer_headers
    answer_headers.decorate(request, request.get(CONTEXT), response.headers)
