"""What stands around every handler, in one place and in this order:

request id -> errors become OpenAI error objects -> CORS preflight -> key and scope -> the key's
limits -> handler

One middleware and one response signal: each layer of its own would cost on every request.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import orjson
from aiohttp import web
from multidict import CIMultiDict

from gateway import logs
from gateway.access.rate_limits import NO_LIMITS
from gateway.access.wrong_keys import TooManyWrongKeys
from gateway.api.addresses import no_route, not_for
from gateway.api.auth import PUBLIC, Scope, admit
from gateway.api.parts import PARTS, Parts
from gateway.api.reading import check_expect, coding_of, is_held_back, too_large
from gateway.api.visit import VISIT, Visit
from gateway.errors import (
    BadRequest,
    GatewayError,
    PayloadTooLarge,
    RequestTimeout,
    Unavailable,
)
from gateway.http.aiohttp_connection import Connection
from gateway.http.cors import Cors
from gateway.http.head_limits import check_head
from gateway.http.refusals import EVERY_ANSWER
from gateway.http.request import FrontRequest, Handler, HandlerOf, Request, RequestT
from gateway.logs import log_request
from gateway.proxy.outgoing import Answer, Whole
from gateway.proxy.routes import dialect_at
from gateway.proxy.targets import check_names, check_path

_log = logging.getLogger(__name__)

H = TypeVar("H", bound=Callable[..., object])

_SCOPE = "_gateway_scope"
_COUNTS = "_gateway_counts"


def needs(scope: Scope) -> Callable[[H], H]:
    """Say what a handler asks of its caller. Without it: a valid key."""

    def mark(handler: H) -> H:
        setattr(handler, _SCOPE, scope)
        return handler

    return mark


def counts(yes: bool) -> Callable[[H], H]:
    """Say whether requests to a handler count for the limits of their keys.

    Without it those that ask for no more than a valid key do, so that a new route is no way around
    them. What doesn't count is administration, and a look at what the gateway has at hand.
    """

    def mark(handler: H) -> H:
        setattr(handler, _COUNTS, yes)
        return handler

    return mark


def counted(handler: object) -> bool:
    """Whether requests to a handler count for the limits of their keys."""
    yes: bool = getattr(handler, _COUNTS, scope_of(handler) is Scope.CHAT)
    return yes


def scope_of(handler: object) -> Scope:
    """What a handler asks of its caller."""
    scope: Scope = getattr(handler, _SCOPE, Scope.CHAT)
    return scope


@web.middleware
async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Around every handler of aiohttp's, also the one that answers 404."""
    connection = request.protocol
    assert isinstance(connection, Connection)
    connection.began(request)
    if request.version[0] != 1:  # 0.9 has no headers, 2 is another protocol
        connection.ended()
        return connection.refused(
            request, BadRequest("this server speaks HTTP/1.1", code="malformed_request")
        )
    visit = request[VISIT] = Visit(request.app[PARTS], request.headers.get("X-Personality"))
    try:
        answered = await answer(request, visit, handler, scope_of(handler))
    finally:
        connection.ended()
    if isinstance(answered, Whole):
        answered = answered.for_aiohttp()
    if is_held_back(request):
        answered.force_close()  # or the body would have to be waited for (RFC 9110, 10.1.1)
    if request.writer.output_size and not answered.prepared and request.transport is not None:
        request.transport.abort()  # its stream failed, and must not look complete
    return answered


async def answer(
    request: RequestT, visit: Visit, handler: HandlerOf[RequestT], scope: Scope
) -> Answer:
    """What ``handler`` answers, or the error that it raised as an answer; logged.

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
    response: Answer | None = None
    try:
        if not isinstance(request, FrontRequest):
            response = _answered_at_once(request, parts)
        if response is None:
            if scope is not PUBLIC:
                while not admit(request, visit, scope):
                    await parts.door.wait()
                if lifecycle.stopping.is_set():
                    raise Unavailable(
                        "the gateway is shutting down",
                        code="shutting_down",
                        headers={"Retry-After": "10"},
                    )
                if visit.principal.limits is not NO_LIMITS and counted(handler):
                    # Before anything is done for it: reading its body may be most of the work.
                    limiter, principal = parts.accounting.limiter, visit.principal
                    visit.grant = limiter.admit(principal.key_id, principal.limits)
                if not isinstance(request, FrontRequest):
                    _check_body(request, parts)
            response = await handler(request)
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


def _answered_at_once(request: web.Request, parts: Parts) -> web.Response | None:
    """The answer to a request that no handler sees; it may also be raised.

    The front door looks at what it serves when it first sees such a head.
    """
    if request.remote:  # not by the control socket
        parts.hosts.check(request.headers.getall("Host", ()), request.version)
    check_head(request, parts.limits)
    check_path(request.rel_url.raw_path)
    check_names(request.rel_url.raw_query_string)
    check_expect(request)
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        return web.Response(status=204, headers=parts.cors.preflight(request.headers))
    return None


def _check_body(request: web.Request, parts: Parts) -> None:
    """Refuse a body before it comes (one at the front door is short, and as it is)."""
    if (request.content_length or 0) > parts.max_body:
        raise too_large(parts.max_body)
    if request.can_read_body:
        coding_of(request)


async def nowhere(request: web.Request) -> web.StreamResponse:
    """Where there is no route, or none for this method.

    aiohttp has an answer of its own for that, which would ask for the body first.
    """
    allowed: set[str] = set()
    for resource in request.app.router.resources():
        if resource is not request.match_info.route.resource:
            allowed |= (await resource.resolve(request))[1]
    if allowed:
        raise web.HTTPMethodNotAllowed(request.method, allowed)
    raise web.HTTPNotFound


async def on_prepare(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """aiohttp is about to send the head of an answer."""
    assert isinstance(request, web.Request)
    decorate(request, request.app[PARTS], request.get(VISIT), response.headers)


def decorate(
    request: Request, parts: Parts, visit: Visit | None, headers: CIMultiDict[str]
) -> None:
    """Add the headers that every answer carries, whoever made it."""
    protect(headers, parts.cors, request.headers, hsts(request, parts))
    if visit is not None:
        headers.update(about(visit))


def protect(
    headers: CIMultiDict[str], cors: Cors, asked: Mapping[str, str], hsts: str | None
) -> None:
    """Add those that are the same in every answer to a request with the headers ``asked``."""
    cors.decorate(asked, headers)
    headers.update(EVERY_ANSWER)
    if "Cache-Control" not in headers:  # streams have their own
        headers["Cache-Control"] = "no-store"  # it may hold a key, or somebody's chat
    if hsts is not None:
        headers["Strict-Transport-Security"] = hsts


def hsts(request: Request, parts: Parts) -> str | None:
    """The Strict-Transport-Security of its answer."""
    if request.secure:
        return parts.tls.hsts
    return parts.proxies.hsts(request) if parts.proxies.any else None


def about(visit: Visit) -> list[tuple[str, str]]:
    """The headers of its answer that say what became of this very request."""
    found = [("X-Request-Id", visit.id)]
    if visit.model is not None:
        found.append(("X-Gateway-Model", _header_text(visit.model)))
    if visit.grant is not None:
        found.extend(visit.grant.headers().items())
    return found


@functools.lru_cache(256)
def _header_text(text: str) -> str:
    """A name as a header value: printable ASCII as it is, the rest percent-encoded."""
    if text.isascii() and text.isprintable():
        return text
    from urllib.parse import quote

    return quote(text, safe=" !#$&'()*+,/:;=?@[]~")


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
