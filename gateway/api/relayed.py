"""Handlers for llama-server's routes in :data:`gateway.proxy.routes.TABLE`.

Administrators reach what that table does not have by ``/upstream/MODEL/...``.
"""

from __future__ import annotations

import posixpath
import secrets
from collections.abc import Mapping
from urllib.parse import unquote

import orjson
from aiohttp import web

from gateway.api.choosing import resolve
from gateway.api.inference import JSON, JsonRoute, answer_unqueued, send
from gateway.api.router_mode import RouterHandlers
from gateway.api.upload import form_handler
from gateway.backends.facts import Headers
from gateway.backends.props_on_file import props as props_on_file
from gateway.backends.scheduler import Scheduler
from gateway.errors import BadRequest, Forbidden, ModelNotFound
from gateway.http.json_response import json_response
from gateway.http.request import Handler
from gateway.http.response import Answer
from gateway.library import Library
from gateway.pipeline.reading import adapted, coding_of, pieces, whole_body
from gateway.pipeline.request_context import CONTEXT, CommonHandler
from gateway.pipeline.route import Routes, Row
from gateway.proxy.call import Call, StreamedBody
from gateway.proxy.headers import FORWARDED
from gateway.proxy.routes import (
    METRICS,
    TABLE,
    ModelIn,
    RelayedRoute,
    refusal,
    renamed,
    route_at,
    without_key,
)
from gateway.proxy.targets import check_sent_on
from gateway.proxy.unqueued import NOT_LOADED, ask_unqueued, to_client
from gateway.scope import Scope

#: Bodies up to this many bytes are read before they are passed on, so that they can be sent again.
_SMALL = 1024 * 1024


def _takes_json(route: RelayedRoute) -> bool:
    return route.method == "POST" and route.model is ModelIn.BODY and not route.refused


class RelayedHandlers:
    """Passes requests on to the model's llama-server, or refuses them."""

    def __init__(
        self,
        library: Library,
        scheduler: Scheduler,
        headers: Headers,
        router: RouterHandlers,
        json_routes: Mapping[str, CommonHandler],
    ) -> None:
        self._json_routes = json_routes
        self._library = library
        self._scheduler = scheduler
        self._headers = headers
        self._router = router

    def routes(self) -> Routes:
        """Return the rows of every route in the table, and that of ``/upstream``."""
        for route in TABLE:
            if route.path == METRICS:
                continue  # with a model in its query only: see gateway.api.metrics
            handler = self._handler(route)
            yield Row(route.method, route.path, handler, route.scope, counts=True)
        yield Row("*", "/upstream/{path:.+}", self.upstream, Scope.ADMIN, counts=True)

    async def metrics_of_model(self, request: web.Request) -> Answer:
        """GET /metrics?model=: what that model's llama-server counts, as it tells it."""
        return await self._show(request, route_at("GET", METRICS))

    def _handler(self, route: RelayedRoute) -> Handler:
        if route.refused:
            return _refusing(route)
        if _takes_json(route):
            return _by_aiohttp(self._json_routes[route.path])
        match route.model:
            case ModelIn.BODY:
                raise AssertionError(f"{route.method} {route.path} has no JSON body")
            case ModelIn.FORM:
                return form_handler(route)
            case ModelIn.QUERY:
                return self._change if route.method == "POST" else self._showing(route)

    def _showing(self, route: RelayedRoute) -> Handler:
        async def show(request: web.Request) -> Answer:
            return await self._show(request, route)

        return show

    async def _show(self, request: web.Request, route: RelayedRoute) -> Answer:
        """GET with ``?model=``: of a loaded model; ``autoload=true`` loads it first, as a router.

        /props of one that isn't loaded says what its file and models.json do.
        """
        if route.path == "/props" and "model" not in request.query:
            return await self._router.props(request)
        context, scheduler = request[CONTEXT], self._scheduler
        target = await resolve(context, {"model": request.query.get("model")})
        sent_to = _target(route.target, request, target.sent_as)
        call = Call(target.name, "GET", sent_to, b"", b"")
        load = request.query.get("autoload", "").lower() in ("true", "1")
        admin = context.principal.may(Scope.ADMIN)
        try:
            fetched = await ask_unqueued(scheduler, call, load=load)
        except BadRequest as error:
            if route.path != "/props" or error.code != NOT_LOADED:
                raise
            backend = scheduler.backend(target.name)
            known = await props_on_file(target.spec, self._headers, backend, shows_path=admin)
            if known is None:
                raise
            return json_response(known)
        return await to_client(scheduler, call, fetched, None if admin else without_paths)

    async def upstream(self, request: web.Request) -> Answer:
        """Any method on /upstream/MODEL/PATH?QUERY: PATH?QUERY of that model's llama-server.

        The model is loaded if need be. Nothing is put into the request, and nothing taken out of it
        but the key. What GET brings may be packed, as the client's ``Accept-Encoding`` has it.
        MODEL may hold slashes, as they are or as ``%2F``: the longest name that there is, is meant.
        """
        if request.method == "HEAD":
            addresses = request[CONTEXT].services.addresses
            raise addresses.not_for("HEAD", request.path, "DELETE, GET, PATCH, POST, PUT")
        model, path = self._split(request)
        if (reason := refusal(path, request.rel_url.raw_query_string)) is not None:
            raise _refused(unquote(path), reason)
        target = await resolve(request[CONTEXT], {"model": model}, anew=True)
        request[CONTEXT].model = target.name
        if not target.spec.ours and {".", ".."} & set(unquote(path).split("/")):
            raise BadRequest("a path to a server elsewhere must not go up: no `..` in it")
        lines = _lines(request, *FORWARDED)
        name, sent_to = target.name, _target(path, request, None)
        if request.method == "GET":
            lines += _lines(request, "Accept-Encoding")
            call = Call(name, "GET", sent_to, lines, b"", coded=True)
            return await answer_unqueued(*adapted(request), call)
        body: bytes | StreamedBody = b""
        length = request.content_length if coding_of(request) is None else None
        if request.can_read_body:
            small = length is not None and length <= _SMALL
            body = await whole_body(request) if small else StreamedBody(pieces(request))
        call = Call(name, request.method, sent_to, lines, body, body_length=length, stream=None)
        if (conversations := request[CONTEXT].services.conversations) is not None:
            call.turn = conversations.stray(request[CONTEXT].principal.key_id)
        answer = await send(*adapted(request), call)
        self._note_change(request, call)
        return answer

    async def _change(self, request: web.Request) -> Answer:
        """POST with ``?model=``: an administrator changes what a loaded model does."""
        if (reason := refusal(request.path, request.rel_url.raw_query_string)) is not None:
            raise _refused(request.path, reason)
        target = await resolve(request[CONTEXT], {"model": request.query.get("model")})
        body = await whole_body(request)
        sent_to = _target(request.rel_url.raw_path, request, target.sent_as)
        call = Call(target.name, "POST", sent_to, JSON, body)
        answer = await answer_unqueued(*adapted(request), call, load=False)
        self._note_change(request, call)
        return answer

    def _note_change(self, request: web.Request, call: Call) -> None:
        """Forget what is known of the slots that ``call`` has changed."""
        conversations = request[CONTEXT].services.conversations
        backend = self._scheduler.backend(call.model)
        if conversations is not None and backend is not None:
            path = posixpath.normpath(unquote(call.target.partition("?")[0]))
            body = call.body if isinstance(call.body, bytes) else secrets.token_bytes(16)
            conversations.changed(backend, path, body)

    def _split(self, request: web.Request) -> tuple[str, str]:
        """Return the model, and the raw path behind it."""
        knows = self._library.resolver.knows
        segments = request.rel_url.raw_path.removeprefix("/upstream/").split("/")
        for count in range(len(segments), 0, -1):
            name = "/".join(unquote(segment) for segment in segments[:count])
            if knows(name):
                return name, "/" + "/".join(segments[count:])
        raise ModelNotFound(
            f"{request.path} begins with no model's name: /upstream/MODEL/PATH", param="model"
        )


#: The POST routes with the model in a JSON body, by path.
JSON_ROUTES: dict[str, JsonRoute] = {
    route.path: JsonRoute(route) for route in TABLE if _takes_json(route)
}


def _by_aiohttp(handler: CommonHandler) -> Handler:
    """Return ``handler`` for requests that aiohttp serves."""

    async def handle(request: web.Request) -> Answer:
        return await handler(*adapted(request))

    return handle


def _refusing(route: RelayedRoute) -> Handler:
    async def handle(request: web.Request) -> Answer:
        raise _refused(route.path, route.reason)

    return handle


def _refused(path: str, reason: str) -> Forbidden:
    return Forbidden(
        f"{path} of llama-server is not to be had here: {reason}", code="route_refused"
    )


def _target(path: str, request: web.Request, model: str | None) -> str:
    """Return ``path`` with the request's query; ``model``: its name at the server, if another."""
    query = without_key(request.rel_url.raw_query_string)
    check_sent_on(query)
    if model is not None:
        query = renamed(query, model)
    return f"{path}?{query}" if query else path


def without_paths(answer: bytes) -> bytes:
    """Return an answer with names of files in place of their paths on this machine."""
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


def _lines(request: web.Request, *names: str) -> bytes:
    """Return the headers ``names`` of ``request`` as they came."""
    lines = "".join(
        f"{name}: {', '.join(request.headers.getall(name))}\r\n"
        for name in names
        if name in request.headers
    )
    return lines.encode("utf-8", "surrogateescape")  # so aiohttp has read them
