"""What stands around every handler, in one place and in this order:

request id -> errors become OpenAI error objects -> CORS preflight -> key and scope -> handler

One middleware and one response signal: each layer of its own would cost on every request.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import orjson
from aiohttp import web
from multidict import CIMultiDict

from gateway.api.auth import Scope, authenticate, authorise
from gateway.api.connections import EVERY_ANSWER, RequestTimeout
from gateway.api.context import (
    DOOR,
    ERRORS,
    GRANT,
    LIFECYCLE,
    MODEL,
    PRINCIPAL,
    REQUEST_ID,
    SETTINGS,
)
from gateway.api.cors import Cors
from gateway.api.hosts import HOSTS, PROXIES
from gateway.api.request import Handler, HandlerOf, Request, RequestT
from gateway.api.tls_state import TLS
from gateway.api.wire import Connection
from gateway.api.wrong_keys import TooManyWrongKeys
from gateway.errors import (
    BadRequest,
    GatewayError,
    NotFound,
    PayloadTooLarge,
    Unavailable,
    error_body,
)
from gateway.logs import log_request
from gateway.proxy.dialect import OPENAI, Dialect
from gateway.proxy.outgoing import Answer, Whole

_log = logging.getLogger(__name__)

H = TypeVar("H", bound=Callable[..., object])

_SCOPE = "_gateway_scope"
_DIALECT = "_gateway_dialect"
_instance = secrets.token_hex(4)
_numbers = itertools.count(1)


def needs(scope: Scope) -> Callable[[H], H]:
    """Say what a handler asks of its caller. Without it: a valid key."""

    def mark(handler: H) -> H:
        setattr(handler, _SCOPE, scope)
        return handler

    return mark


def scope_of(handler: object) -> Scope:
    """What a handler asks of its caller."""
    scope: Scope = getattr(handler, _SCOPE, Scope.CHAT)
    return scope


def speaks(dialect: Dialect) -> Callable[[H], H]:
    """Say whose errors a handler's clients understand. Without it: OpenAI's."""

    def mark(handler: H) -> H:
        setattr(handler, _DIALECT, dialect)
        return handler

    return mark


@web.middleware
async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Around every handler of aiohttp's, also the one that answers 404."""
    connection = request.protocol
    assert isinstance(connection, Connection)
    connection.began(request)
    try:
        answered = await answer(request, handler)
    finally:
        connection.ended()
    if isinstance(answered, Whole):
        return answered.for_aiohttp()
    if request.writer.output_size and not answered.prepared and request.transport is not None:
        request.transport.abort()  # its stream failed, and must not look complete
    return answered


async def answer(request: RequestT, handler: HandlerOf[RequestT]) -> Answer:
    """What ``handler`` answers, or the error that it raised as an answer; logged.

    Raises only ``CancelledError``: the client has gone.
    """
    request[REQUEST_ID] = f"req_{_instance}{next(_numbers):08x}"
    app = request.app
    lifecycle = app[LIFECYCLE]
    started = time.perf_counter()
    lifecycle.enter()
    status: int | str = 500
    logged = True
    try:
        response = await _admitted(request, handler)
        status = response.status
        return response
    except GatewayError as error:
        response = _error_response(request, handler, error)
        status = response.status
        if isinstance(error, RequestTimeout):
            response.force_close()  # the rest of the body may still come
        logged = not isinstance(error, TooManyWrongKeys)  # a flood must not fill the log
        return response
    except web.HTTPException as error:
        response = _from_aiohttp(request, handler, error)
        status = response.status
        return response
    except web.RequestPayloadError:
        # What came in place of a body is no chunked coding, or ends too soon.
        response = _error_response(
            request,
            handler,
            BadRequest("the body is not what its headers say", code="malformed_request"),
        )
        response.force_close()
        status = response.status
        return response
    except asyncio.CancelledError:
        status = 499  # nginx's number for a client that went away
        raise
    except ConnectionError:
        status = 499
        return web.Response(status=499)  # nobody reads it; raised, it would be logged as an error
    except Exception:
        _log.exception("request %s failed", request[REQUEST_ID])
        return _json_error(
            500, error_body("internal error", type_="api_error", code="internal_error")
        )
    finally:
        lifecycle.leave()
        if logged:
            principal = request.get(PRINCIPAL)
            log_request(
                request[REQUEST_ID],
                request.method,
                request.path,  # without the query: it may hold a key
                status,
                time.perf_counter() - started,
                principal.key_id if principal is not None else "-",
                request.get(MODEL, "-"),
                app[PROXIES].client(request) or "-",
            )


async def _admitted(request: RequestT, handler: HandlerOf[RequestT]) -> Answer:
    app = request.app
    if request.version[0] != 1:  # 0.9 has no headers, 2 is another protocol
        raise BadRequest("this server speaks HTTP/1.1", code="malformed_request")
    if request.remote:  # not by the control socket
        app[HOSTS].check(request.headers.getall("Host", ()), request.version)
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        return web.Response(status=204, headers=app[CORS].preflight(request.headers))
    scope = scope_of(handler)
    if scope is not Scope.PUBLIC:
        principal = authenticate(request)
        while principal is None:
            await app[DOOR].wait()
            principal = authenticate(request)
        request[PRINCIPAL] = principal
        authorise(principal, scope)
        if app[LIFECYCLE].stopping.is_set():
            raise Unavailable(
                "the gateway is shutting down", code="shutting_down", headers={"Retry-After": "10"}
            )
    return await handler(request)


CORS = web.AppKey("cors", Cors)


async def on_prepare(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """aiohttp is about to send the head of an answer."""
    assert isinstance(request, web.Request)
    decorate(request, response.headers)


def decorate(request: Request, headers: CIMultiDict[str]) -> None:
    """Add the headers that every answer carries, whoever made it."""
    protect(headers, request.app[CORS], request.headers, hsts(request))
    headers.update(about(request))


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


def hsts(request: Request) -> str | None:
    """The Strict-Transport-Security of its answer."""
    app = request.app
    return app[TLS].hsts if request.secure else app[PROXIES].hsts(request)


def about(request: Request) -> list[tuple[str, str]]:
    """The headers of its answer that say what became of this very request."""
    found = []
    if (request_id := request.get(REQUEST_ID)) is not None:
        found.append(("X-Request-Id", request_id))
    if (model := request.get(MODEL)) is not None:
        found.append(("X-Gateway-Model", _header_text(model)))
    if (grant := request.get(GRANT)) is not None:
        found.extend(grant.headers().items())
    return found


@functools.lru_cache(256)
def _header_text(text: str) -> str:
    """A name as a header value: printable ASCII as it is, the rest percent-encoded."""
    if text.isascii() and text.isprintable():
        return text
    from urllib.parse import quote

    return quote(text, safe=" !#$&'()*+,/:;=?@[]~")


def _error_response(request: Request, handler: object, error: GatewayError) -> web.Response:
    if error.status >= 500 and not isinstance(error, Unavailable):
        request.app[ERRORS].add(
            error.message,
            code=error.code,
            model=request.get(MODEL),
            request_id=request.get(REQUEST_ID),
        )
    return _json_error(error.status, _said(handler, error), error.headers)


def _said(handler: object, error: GatewayError) -> dict[str, object]:
    dialect: Dialect = getattr(handler, _DIALECT, OPENAI)
    return dialect.body(error)


def _from_aiohttp(request: Request, handler: object, error: web.HTTPException) -> web.Response:
    """aiohttp's own refusals in OpenAI's shape."""
    path = request.path
    mapped: GatewayError
    if error.status == 404:
        mapped = NotFound(f"there is no route {request.method} {path}", code="route_not_found")
    elif error.status == 413:
        limit = request.app[SETTINGS].limits.max_body
        mapped = PayloadTooLarge(f"the body is over {limit} bytes (limits.max_body)")
    elif isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        body = error_body(
            f"{path} does not take {request.method}; allowed: {allowed}",
            type_="invalid_request_error",
            code="method_not_allowed",
        )
        return _json_error(405, body, {"Allow": allowed})
    elif error.status < 400:
        raise error
    else:
        mapped = BadRequest(error.text or error.reason)
        return _json_error(error.status, mapped.body())
    return _json_error(mapped.status, _said(handler, mapped), mapped.headers)


def _json_error(
    status: int, body: dict[str, object], headers: dict[str, str] | None = None
) -> web.Response:
    return web.Response(
        status=status,
        body=orjson.dumps(body),
        content_type="application/json",
        headers=headers,
    )
