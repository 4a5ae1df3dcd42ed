"""What answers each route of llama-server's: the table of :mod:`gateway.proxy.routes`, made real.

And ``/upstream/MODEL/...``, for administrators: whatever that table doesn't have.
"""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterable, Iterator
from urllib.parse import unquote

import orjson
from aiohttp import web

from gateway.api import router, unloaded
from gateway.api.addresses import not_for
from gateway.api.app_keys import LIBRARY, SCHEDULER
from gateway.api.classic import json_response
from gateway.api.inference import JSON, answer_unqueued, json_handler, resolve, send
from gateway.api.reading import coding_of, pieces, whole_body
from gateway.api.request_context import CONTEXT, CommonHandler
from gateway.api.route import H, counts, needs
from gateway.api.upload import form_handler
from gateway.errors import BadRequest, Forbidden, ModelNotFound
from gateway.http.aiohttp_request import AiohttpRequest
from gateway.http.request import Handler
from gateway.http.response import Answer
from gateway.proxy.call import Call
from gateway.proxy.headers import FORWARDED
from gateway.proxy.routes import TABLE, ModelIn, Route, refusal, renamed, without_key
from gateway.proxy.targets import check_sent_on
from gateway.proxy.unqueued import NOT_LOADED, ask_unqueued, to_client
from gateway.scope import Scope

#: Bodies up to here are read before they are sent on, so that they can be sent once more.
_SMALL = 1024 * 1024


def routes() -> Iterator[tuple[str, str, Handler]]:
    """``(method, path, handler)`` of every route in the table."""
    for route in TABLE:
        handler = _by_aiohttp(JSON_ROUTES[route.path]) if _takes_json(route) else _handler(route)
        yield route.method, route.path, _marked(route, handler)


def _takes_json(route: Route) -> bool:
    return route.method == "POST" and route.model is ModelIn.BODY and not route.refused


def _marked(route: Route, handler: H) -> H:
    return counts(True)(needs(route.scope)(handler))


def _handler(route: Route) -> Handler:
    if route.refused:
        return _refusing(route)
    match route.model:
        case ModelIn.BODY:
            raise AssertionError(f"{route.method} {route.path} has no JSON body")
        case ModelIn.FORM:
            return form_handler(route)
        case ModelIn.QUERY:
            return _changing if route.method == "POST" else _showing(route)


#: The routes whose model stands in a JSON body: POST, by their paths.
JSON_ROUTES: dict[str, CommonHandler] = {
    route.path: _marked(route, json_handler(route)) for route in TABLE if _takes_json(route)
}


def _by_aiohttp(handler: CommonHandler) -> Handler:
    """Return ``handler`` for requests that aiohttp serves."""

    async def handle(request: web.Request) -> Answer:
        return await handler(AiohttpRequest(request, whole_body), request[CONTEXT])

    return handle


def _refusing(route: Route) -> Handler:
    async def handle(request: web.Request) -> Answer:
        raise _refused(route.path, route.reason)

    return handle


def _refused(path: str, reason: str) -> Forbidden:
    return Forbidden(
        f"{path} of llama-server is not to be had here: {reason}", code="route_refused"
    )


def _showing(route: Route) -> Handler:
    """GET with ``?model=``: of a loaded model; ``autoload=true`` loads it first, as a router.

    /props of one that isn't loaded says what its file and models.json do.
    """

    async def handle(request: web.Request) -> Answer:
        if route.path == "/props" and "model" not in request.query:
            return await router.props(request)
        target = await resolve(request[CONTEXT], {"model": request.query.get("model")})
        sent_to = _target(route.target, request, target.sent_as)
        call = Call(target.name, "GET", sent_to, b"", b"")
        load = request.query.get("autoload", "").lower() in ("true", "1")
        try:
            fetched = await ask_unqueued(request.app[SCHEDULER], call, load=load)
        except BadRequest as error:
            if route.path != "/props" or error.code != NOT_LOADED:
                raise
            if (known := await unloaded.props(request, target.spec)) is None:
                raise
            return json_response(known)
        change = None if request[CONTEXT].principal.may(Scope.ADMIN) else without_paths
        return await to_client(request.app[SCHEDULER], call, fetched, change)

    return handle


async def _changing(request: web.Request) -> Answer:
    """POST with ``?model=``: an administrator changes what a loaded model does."""
    if (reason := refusal(request.path, request.rel_url.raw_query_string)) is not None:
        raise _refused(request.path, reason)
    target = await resolve(request[CONTEXT], {"model": request.query.get("model")})
    body = await whole_body(request)
    sent_to = _target(request.rel_url.raw_path, request, target.sent_as)
    call = Call(target.name, "POST", sent_to, JSON, body)
    return await answer_unqueued(
        AiohttpRequest(request, whole_body), request[CONTEXT], call, load=False
    )


def _target(path: str, request: web.Request, model: str | None) -> str:
    """``path`` with the request's query; ``model``: what it is called there, if otherwise."""
    query = without_key(request.rel_url.raw_query_string)
    check_sent_on(query)
    if model is not None:
        query = renamed(query, model)
    return f"{path}?{query}" if query else path


def without_paths(answer: bytes) -> bytes:
    """An answer without the folders of this machine: only the names of files in them."""
    try:
        parsed = orjson.loads(answer)
    except ValueError:
        return answer
    for entry in parsed if isinstance(parsed, list) else [parsed]:
        for key in ("model_path", "path"):
            if isinstance(entry, dict) and isinstance(value := entry.get(key), str):
                entry[key] = posixpath.basename(value.replace("\\", "/"))
    return orjson.dumps(parsed)


# --- /upstream -----------------------------------------------------------------------------


@counts(True)
@needs(Scope.ADMIN)
async def upstream(request: web.Request) -> Answer:
    """Any method on /upstream/MODEL/PATH?QUERY: PATH?QUERY of that model's llama-server.

    The model is loaded if need be. Nothing is put into the request, and nothing taken out of it
    but the key. What GET brings may be packed, as the client's ``Accept-Encoding`` has it. MODEL
    may hold slashes, as they are or as ``%2F``: the longest name that there is, is meant.
    """
    if request.method == "HEAD":
        raise not_for(request, "DELETE, GET, PATCH, POST, PUT")
    model, path = _split(request)
    if (reason := refusal(path, request.rel_url.raw_query_string)) is not None:
        raise _refused(unquote(path), reason)
    target = await resolve(request[CONTEXT], {"model": model}, anew=True)
    request[CONTEXT].model = target.name
    if target.spec.url and {".", ".."} & set(unquote(path).split("/")):
        raise BadRequest("a path to a server elsewhere must not go up: no `..` in it")
    lines = _lines(request, *FORWARDED)
    name, sent_to = target.name, _target(path, request, None)
    if request.method == "GET":
        lines += _lines(request, "Accept-Encoding")
        call = Call(name, "GET", sent_to, lines, b"", coded=True)
        return await answer_unqueued(AiohttpRequest(request, whole_body), request[CONTEXT], call)
    body: bytes | AsyncIterable[bytes] = b""
    length = request.content_length if coding_of(request) is None else None
    if request.can_read_body:
        small = length is not None and length <= _SMALL
        body = await whole_body(request) if small else pieces(request)
    call = Call(name, request.method, sent_to, lines, body, length=length, stream=None)
    return await send(AiohttpRequest(request, whole_body), request[CONTEXT], call)


def _lines(request: web.Request, *names: str) -> bytes:
    """The headers ``names`` of ``request``, as they came."""
    lines = "".join(
        f"{name}: {', '.join(request.headers.getall(name))}\r\n"
        for name in names
        if name in request.headers
    )
    return lines.encode("utf-8", "surrogateescape")  # so aiohttp has read them


def _split(request: web.Request) -> tuple[str, str]:
    """The model and the raw path behind it."""
    knows = request.app[LIBRARY].resolver.knows
    segments = request.rel_url.raw_path.removeprefix("/upstream/").split("/")
    for count in range(len(segments), 0, -1):
        name = "/".join(unquote(segment) for segment in segments[:count])
        if knows(name):
            return name, "/" + "/".join(segments[count:])
    raise ModelNotFound(
        f"{request.path} begins with no model's name: /upstream/MODEL/PATH", param="model"
    )
