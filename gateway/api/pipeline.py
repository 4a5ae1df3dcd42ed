"""What stands around every handler, whichever protocol a request came by.

A request goes through the steps of its protocol in their order, then to its handler; whatever is
raised on the way becomes an answer in the shape of the API that its client speaks. One function
and two tuples: a middleware for each would cost on every request.
"""

from __future__ import annotations

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
from gateway.access.scope import ADMIN, PUBLIC, Scope
from gateway.access.wrong_keys import TooManyWrongKeys
from gateway.api.addresses import no_route, not_for
from gateway.api.parts import Parts
from gateway.api.reading import check_expect, coding_of, too_large
from gateway.api.route import counted, scope_of
from gateway.api.visit import Visit
from gateway.errors import BadRequest, GatewayError, PayloadTooLarge, RequestTimeout, Unavailable
from gateway.http.head_limits import check_head
from gateway.http.request import AnyHandler, FastRequest, Request
from gateway.http.response import Answer
from gateway.logs import log_request
from gateway.proxy.routes import dialect_at
from gateway.proxy.targets import check_names, check_path

_log = logging.getLogger(__name__)


class Route:
    """A handler, what it asks of its caller, and the steps that stand before it."""

    __slots__ = ("handler", "scope", "steps")

    def __init__(
        self, handler: Callable[[Any], Awaitable[Answer]], steps: tuple[Step, ...]
    ) -> None:
        """``steps``: all of its protocol, of which those are kept that it needs."""
        self.handler = handler
        self.scope: Scope = scope_of(handler)
        unneeded: set[Step] = set()
        if not counted(handler):
            unneeded.add(charge)
        if self.scope is PUBLIC:
            unneeded |= {authenticate, use_known_key, refuse_when_stopping, charge, check_body}
        self.steps = tuple(step for step in steps if step not in unneeded)


class KnownRoute(Route):
    """The route of requests with one head, and what that head says: read once.

    An :data:`gateway.http.request.Endpoint`.
    """

    __slots__ = ("_parts", "_personality", "key")

    def __init__(self, handler: AnyHandler, parts: Parts, headers: CIMultiDict[str]) -> None:
        super().__init__(handler, FAST_JSON)
        self._parts = parts
        self._personality = headers.get("X-Personality")
        self.key = key_in(headers)

    def __call__(self, request: FastRequest) -> Coroutine[Any, Any, Answer]:
        """Answer ``request``."""
        request.context = visit = Visit(self._parts, self._personality)
        return answer(request, visit, self)


#: Looks at a request before its handler does: raises what is wrong, or answers it at once.
Step = Callable[[Any, Visit, Any], web.Response | None]


def check_target(request: web.Request, visit: Visit, _route: Route) -> None:
    """Refuse a request that is not for here, or whose head two readers could read differently."""
    parts = visit.parts
    if request.remote:  # not by the control socket
        parts.hosts.check(request.headers.getall("Host", ()), request.version)
    check_head(request, parts.limits)
    check_path(request.rel_url.raw_path)
    check_names(request.rel_url.raw_query_string)
    check_expect(request)


def preflight(request: web.Request, visit: Visit, _route: Route) -> web.Response | None:
    """Answer a browser that asks whether a page may call (WHATWG Fetch, CORS-preflight)."""
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        return web.Response(status=204, headers=visit.parts.cors.preflight(request.headers))
    return None


def authenticate(request: web.Request, visit: Visit, route: Route) -> None:
    """Find out whose request it is, and whether they may."""
    gate = visit.parts.gate
    key = presented_key(request, allow_query=gate.keys_in_queries)
    visit.principal = gate.admit(request, key, route.scope)
    visit.needs_admin = route.scope is ADMIN
    gate.check(visit.principal, route.scope)


def use_known_key(request: FastRequest, visit: Visit, route: KnownRoute) -> None:
    """The same where the key was read with the head."""
    gate = visit.parts.gate
    visit.principal = gate.admit(request, route.key, route.scope)
    visit.needs_admin = route.scope is ADMIN
    gate.check(visit.principal, route.scope)


def refuse_when_stopping(_request: Request, visit: Visit, _route: Route) -> None:
    """Take no new work while the gateway ends; probes still see that it does."""
    if visit.parts.lifecycle.stopping.is_set():
        raise Unavailable(
            "the gateway is shutting down", code="shutting_down", headers={"Retry-After": "10"}
        )


def charge(_request: Request, visit: Visit, _route: Route) -> None:
    """Count the request for the limits of its key, before anything is done for it.

    Reading its body may be most of the work.
    """
    principal = visit.principal
    if principal.limits is not NO_LIMITS:
        visit.grant = visit.parts.accounting.limiter.admit(principal.key_id, principal.limits)


def check_body(request: web.Request, visit: Visit, _route: Route) -> None:
    """Refuse a body before it comes."""
    if (request.content_length or 0) > visit.parts.max_body:
        raise too_large(visit.parts.max_body)
    if request.can_read_body:
        coding_of(request)


#: What a request goes through that aiohttp has parsed.
AIOHTTP: tuple[Step, ...] = (
    check_target,
    preflight,
    authenticate,
    refuse_when_stopping,
    charge,
    check_body,
)
#: And one of the fast protocol, which looks at a head when it is first seen, and takes no body
#: that is long or packed.
FAST_JSON: tuple[Step, ...] = (use_known_key, refuse_when_stopping, charge)


async def answer(request: Request, visit: Visit, route: Route) -> Answer:
    """Return what the handler of ``route`` answers, or the error that was raised; logged.

    Raises only ``CancelledError``: the client has gone.
    """
    parts = visit.parts
    lifecycle = parts.lifecycle
    started = time.perf_counter()
    lifecycle.enter()
    if logs.request_ids is not None and (task := asyncio.current_task()) is not None:
        logs.request_ids[task] = visit.id
    status = 500
    logged = True
    response: Answer | None
    try:
        if parts.gate.is_closed:
            await _until_keys_are_known(request, visit, route)
        for step in route.steps:
            if (response := step(request, visit, route)) is not None:
                break
        else:
            response = await route.handler(request)
        status = response.status
        return response
    except GatewayError as error:
        refused = _error_response(visit, request.path, error)
        status = refused.status
        logged = not isinstance(error, TooManyWrongKeys)  # a flood must not fill the log
        return refused
    except web.HTTPException as error:
        refused = _from_aiohttp(request, visit, error)
        status = refused.status
        return refused
    except web.RequestPayloadError:
        # What came in place of a body is no chunked coding, or ends too soon.
        refused = _error_response(
            visit,
            request.path,
            BadRequest("the body is not what its headers say", code="malformed_request"),
        )
        refused.force_close()
        status = refused.status
        return refused
    except asyncio.CancelledError:
        status = 499  # nginx's number for a client that went away
        raise
    except ConnectionError:
        status = 499
        return web.Response(status=499)  # nobody reads it; raised, it would be logged as an error
    except Exception:
        _log.exception("request %s failed", visit.id)
        return _error_response(visit, request.path, GatewayError("internal error"), told=False)
    finally:
        lifecycle.leave()
        if visit.grant is not None:
            visit.grant.answered(status)
        if visit.place is not None:
            visit.place.give_back()
        if logged:
            log_request(
                visit.id,
                request.method,
                request.path,  # without the query: it may hold a key
                status,
                time.perf_counter() - started,
                visit.principal.key_id,
                visit.model or "-",
                parts.proxies.client(request) or "-",
            )


async def _until_keys_are_known(request: Request, visit: Visit, route: Route) -> None:
    """Wait for the store to be opened, which takes a moment at the start.

    Only who brings a key waits, after what is refused, or answered, without a look at keys.
    """
    if route.scope is PUBLIC:
        return
    gate = visit.parts.gate
    if isinstance(route, KnownRoute):
        key = route.key
    else:
        assert isinstance(request, web.Request)
        check_target(request, visit, route)
        if preflight(request, visit, route) is not None:
            return  # the step itself answers
        key = presented_key(request, allow_query=gate.keys_in_queries)
    if key is not None:
        await gate.wait()


def _error_response(
    visit: Visit, path: str, error: GatewayError, *, told: bool = True
) -> web.Response:
    """``error`` in the shape of the API that clients of ``path`` speak."""
    if told and error.status >= 500 and not isinstance(error, Unavailable):
        visit.parts.errors.add(
            error.message, code=error.code, model=visit.model, request_id=visit.id
        )
    response = web.Response(
        status=error.status,
        body=orjson.dumps(dialect_at(path).body(visit.tell(error))),
        content_type="application/json",
        headers=error.headers,
    )
    if isinstance(error, RequestTimeout | PayloadTooLarge):
        response.force_close()  # the rest of the body may still come
    return response


def _from_aiohttp(request: Request, visit: Visit, error: web.HTTPException) -> web.Response:
    """aiohttp's own refusals in the shape of ours."""
    path = request.path
    mapped: GatewayError
    if error.status == 404:
        assert isinstance(request, web.Request)
        mapped = no_route(request)
    elif error.status == 413:
        mapped = too_large(visit.parts.max_body)
    elif isinstance(error, web.HTTPMethodNotAllowed):
        assert isinstance(request, web.Request)
        mapped = not_for(request, ", ".join(sorted(error.allowed_methods)))
    elif error.status < 400:
        raise error
    else:
        mapped = BadRequest(error.text or error.reason)
        response = _error_response(visit, path, mapped)
        response.set_status(error.status)
        return response
    return _error_response(visit, path, mapped)
