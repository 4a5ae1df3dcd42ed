"""The pipeline around every handler, for requests of both protocols.

A request goes through the steps of its protocol in their order, then to its handler. Whatever is
raised on the way becomes an answer in the shape of the API that its client speaks. All of it is one
function and two tuples, because a middleware for each step would cost time on every request.
"""

from __future__ import annotations

import abc
import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import orjson
from aiohttp import web
from multidict import CIMultiDict

from gateway import logs
from gateway.access.presented_key import key_in, presented_key
from gateway.access.rate_limits import NO_LIMITS
from gateway.access.wrong_keys import TooManyWrongKeys
from gateway.errors import (
    CLIENT_GONE,
    BadRequest,
    GatewayError,
    PayloadTooLarge,
    RequestTimeout,
    ShuttingDown,
    Unavailable,
    status_of,
)
from gateway.http.head_limits import check_head
from gateway.http.request import FastRequest, RequestHead
from gateway.http.response import Answer, BufferedResponse
from gateway.logs import log_request
from gateway.pipeline.reading import check_expect, coding_of, too_large
from gateway.pipeline.request_context import CommonHandler, RequestContext
from gateway.pipeline.route import Row
from gateway.pipeline.services import Services
from gateway.proxy.routes import dialect_at
from gateway.proxy.targets import check_names, check_path
from gateway.scope import OF_ANY_KEY, Scope

_log = logging.getLogger(__name__)


class Route(abc.ABC):
    """A handler with the right that it needs, and the steps before it."""

    __slots__ = ("answers", "handle", "scope", "steps")

    #: The handler, called with a request that has passed the steps.
    handle: Callable[[Any, RequestContext], Awaitable[Answer]]

    def __init__(self, row: Row, steps: tuple[Step, ...], services: Services) -> None:
        """``steps``: all steps of its protocol. The route keeps those that it needs."""
        self.scope: Scope = row.scope
        #: How many of its answers had each status. All routes of one row share them.
        self.answers = services.answers.setdefault((row.method, row.path), {})
        unneeded: set[Step] = set()
        if not row.is_counted:
            unneeded.add(charge)
        if self.scope in OF_ANY_KEY:
            unneeded.add(authorize)  # any key that gets this far has it
        if self.scope is Scope.PUBLIC:
            unneeded |= {authenticate, refuse_when_stopping, charge, check_body}
        self.steps = tuple(step for step in steps if step not in unneeded)

    @abc.abstractmethod
    def key_of(self, request: Any, context: RequestContext) -> str | None:
        """Return the key that a request presents, unchecked."""

    @abc.abstractmethod
    def brings_key(self, request: Any, context: RequestContext) -> bool:
        """Return whether a request presents a key that the steps will check.

        A request without a key doesn't wait for the store. Raises the error of a step that refuses
        it earlier.
        """


class AiohttpRoute(Route):
    """The route of requests that aiohttp serves."""

    __slots__ = ()

    def __init__(self, row: Row, services: Services) -> None:
        super().__init__(row, AIOHTTP, services)
        handler = row.handler
        self.handle = lambda request, _context: handler(request)

    def key_of(self, request: web.Request, context: RequestContext) -> str | None:
        """See :meth:`Route.key_of`."""
        return presented_key(request, allow_query=context.services.gate.keys_in_queries)

    def brings_key(self, request: web.Request, context: RequestContext) -> bool:
        """See :meth:`Route.brings_key`."""
        if self.scope is Scope.PUBLIC:
            return False
        check_target(request, context, self)
        if preflight(request, context, self) is not None:
            return False  # the step itself answers
        return self.key_of(request, context) is not None


class CachedRoute(Route):
    """The route of all requests with one head, which is read only once.

    An :data:`gateway.http.request.Endpoint`.
    """

    __slots__ = ("_key", "_personality", "_services")

    def __init__(
        self, row: Row, handler: CommonHandler, services: Services, headers: CIMultiDict[str]
    ) -> None:
        super().__init__(row, FAST_JSON, services)
        self.handle = handler
        self._services = services
        self._personality = headers.get("X-Personality")
        self._key = key_in(headers)

    def __call__(self, request: FastRequest) -> Coroutine[Any, Any, Any]:
        """Answer ``request``."""
        request.context = context = RequestContext(self._services, self._personality)
        return answer(request, context, self)

    def key_of(self, request: FastRequest, context: RequestContext) -> str | None:
        """See :meth:`Route.key_of`."""
        return self._key

    def brings_key(self, request: FastRequest, context: RequestContext) -> bool:
        """See :meth:`Route.brings_key`."""
        return self._key is not None


#: A function that looks at a request before its handler: it raises an error, or answers at once.
Step = Callable[[Any, RequestContext, Any], web.Response | None]


def check_target(request: web.Request, context: RequestContext, _route: Route) -> None:
    """Refuse a request for another host, or one whose head two parsers could read differently."""
    services = context.services
    if request.remote:  # not by the control socket
        services.hosts.check(request.headers.getall("Host", ()), request.version)
    check_head(request, services.limits)
    check_path(request.rel_url.raw_path)
    check_names(request.rel_url.raw_query_string)
    check_expect(request)


def preflight(request: web.Request, context: RequestContext, _route: Route) -> web.Response | None:
    """Answer a browser that asks whether a page may send a request (WHATWG Fetch,
    CORS-preflight).
    """
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        return web.Response(status=204, headers=context.services.cors.preflight(request.headers))
    return None


def authenticate(request: RequestHead, context: RequestContext, route: Route) -> None:
    """Find out who makes the request."""
    scope, key = route.scope, route.key_of(request, context)
    context.principal = context.services.gate.identify(request, key, scope)
    context.scope = scope


def authorize(_request: RequestHead, context: RequestContext, route: Route) -> None:
    """Refuse a principal without the right that the route needs."""
    context.services.gate.check(context.principal, route.scope)


def refuse_when_stopping(_request: RequestHead, context: RequestContext, _route: Route) -> None:
    """Refuse new work while the gateway ends. Probes still see that it does.

    If the next gateway takes the new connections, clients of this one may still send a request.
    """
    lifecycle = context.services.lifecycle
    if lifecycle.stopping.is_set() and not lifecycle.hands_over:
        raise ShuttingDown


def charge(_request: RequestHead, context: RequestContext, _route: Route) -> None:
    """Charge the request to the limits of its key, before anything is done for it.

    Reading the body may be most of the work.
    """
    principal = context.principal
    if principal.limits is not NO_LIMITS:
        context.grant = context.services.accounting.limiter.admit(
            principal.key_id, principal.limits
        )


def check_body(request: web.Request, context: RequestContext, _route: Route) -> None:
    """Refuse a body that is too large, or has an unknown coding, before it arrives."""
    if (request.content_length or 0) > context.services.limits.max_body:
        raise too_large(context.services.limits.max_body)
    if request.can_read_body:
        coding_of(request)


#: The steps of a request that aiohttp has parsed.
AIOHTTP: tuple[Step, ...] = (
    check_target,
    preflight,
    authenticate,
    authorize,
    refuse_when_stopping,
    charge,
    check_body,
)
#: The steps of a request of the fast protocol, which checks a head when it first sees it, and takes
#: no long or packed body.
FAST_JSON: tuple[Step, ...] = (authenticate, authorize, refuse_when_stopping, charge)


async def answer(request: RequestHead, context: RequestContext, route: Route) -> Answer:
    """Return the answer of the handler of ``route``, or an error as an answer, and log the request.

    Raises only ``CancelledError``, when the client has gone.
    """
    services = context.services
    lifecycle = services.lifecycle
    started = time.perf_counter()
    lifecycle.enter()
    if logs.request_ids is not None and (task := asyncio.current_task()) is not None:
        logs.request_ids[task] = context.id
    status = 500
    logged = True
    response: Answer | None
    try:
        if services.gate.is_closed and route.brings_key(request, context):
            await services.gate.wait()  # the store is opened a moment after the start
        for step in route.steps:
            if (response := step(request, context, route)) is not None:
                break
        else:
            response = await route.handle(request, context)
        status = response.status
        return response
    except GatewayError as error:
        status = error.status
        logged = not isinstance(error, TooManyWrongKeys)  # a flood must not fill the log
        return _error_response(context, request.path, error)
    except web.RequestPayloadError:
        # What came in place of a body is no chunked coding, or ends too soon.
        malformed = BadRequest("the body is not what its headers say", code="malformed_request")
        status = malformed.status
        return _error_response(context, request.path, malformed, closes=True)
    except BaseException as error:
        status = status_of(error)
        if isinstance(error, asyncio.CancelledError) or not isinstance(error, Exception):
            raise
        if status == CLIENT_GONE:
            return BufferedResponse(status, (), b"")  # nobody reads it; raised, it would be logged
        _log.exception("request %s failed", context.id)
        return _error_response(context, request.path, GatewayError("internal error"), told=False)
    finally:
        lifecycle.leave()
        answers = route.answers
        answers[status] = answers.get(status, 0) + 1
        context.release(status)
        if logged:
            log_request(
                context.id,
                request.method,
                request.path,  # without the query: it may hold a key
                status,
                time.perf_counter() - started,
                context.principal.key_id,
                context.model or "-",
                services.proxies.client(request) or "-",
            )


def _error_response(
    context: RequestContext,
    path: str,
    error: GatewayError,
    *,
    told: bool = True,
    closes: bool = False,
) -> BufferedResponse:
    """Return ``error`` in the shape of the API that clients of ``path`` speak."""
    if told and error.status >= 500 and not isinstance(error, Unavailable):
        context.services.errors.add(
            error.message, code=error.code, model=context.model, request_id=context.id
        )
    return BufferedResponse(
        error.status,
        (*error.headers.items(), ("Content-Type", "application/json")),
        orjson.dumps(dialect_at(path).body(context.tell(error))),
        # The rest of the body may still come.
        closes or isinstance(error, RequestTimeout | PayloadTooLarge),
    )
