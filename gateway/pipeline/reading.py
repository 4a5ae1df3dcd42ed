"""Reads bodies of requests that aiohttp serves: asks for them when they are wanted, unpacks them.

aiohttp's own unpacking (``auto_decompress``) is off: it would unpack all there is before anybody
could say that it is too much.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping

from aiohttp import web

from gateway.errors import BadRequest, ExpectationFailed, PayloadTooLarge, UnsupportedMediaType
from gateway.http.aiohttp_request import AiohttpRequest
from gateway.http.half_closed import CONTINUE
from gateway.pipeline.request_context import CONTEXT, RequestContext
from gateway.proxy.body import JsonObject, NotJson, parse_object
from gateway.proxy.coding import DECODERS, Damaged
from gateway.proxy.targets import check_query_model
from gateway.workers import SMALL, WORKERS

#: Content types that may hold JSON: what curl and others claim of any body, and what pages may send
#: without a preflight.
_PERHAPS_JSON = frozenset(
    {
        "application/json",
        "text/json",
        "application/x-www-form-urlencoded",
        "application/octet-stream",
        "text/plain",
    }
)
#: Bytes of a body for a route of the gateway's own.
_OWN_BODY = SMALL
#: Values in such a body.
_OWN_VALUES = 20_000
#: How many copies of a body are in memory at once: as it came, and as it is sent on.
_TIMES = 2
_ASKED = web.RequestKey("asked", bool)


async def leave_expect(_request: web.Request) -> None:
    """Do nothing for ``Expect``, in place of what aiohttp does before anybody has looked."""


def check_expect(request: web.Request) -> None:
    """Raise :class:`ExpectationFailed` for anything but ``100-continue`` (RFC 9110, 10.1.1)."""
    for given in request.headers.getall("Expect", ()):
        if any(one.strip().lower() not in ("100-continue", "") for one in given.split(",")):
            raise ExpectationFailed("Expect: only 100-continue is understood here")


def coding_of(request: web.Request) -> str | None:
    """Return the content coding of the body (RFC 9110, 8.4), if it has one.

    Raises :class:`UnsupportedMediaType` for one that isn't taken, a list of several included, and
    for a transfer coding under the chunks (RFC 9112, 7), which nobody takes off.
    """
    under = ", ".join(request.headers.getall("Transfer-Encoding", ())).strip()
    if under.lower() not in ("", "chunked"):
        raise UnsupportedMediaType(
            f"Transfer-Encoding {under[:100]!r} is not taken here: only chunked is"
        )
    given = ", ".join(request.headers.getall("Content-Encoding", ())).strip()
    coding = given.lower()
    if coding in ("", "identity"):
        return None
    if coding in DECODERS:
        return coding
    taken = ", ".join(DECODERS)
    raise UnsupportedMediaType(
        f"Content-Encoding {given[:100]!r} is not taken here: one of {taken} is, or none",
        headers={"Accept-Encoding": taken},  # RFC 9110, 15.5.16
    )


def too_large(limit: int) -> PayloadTooLarge:
    """Return the error for a body of over ``limit`` bytes, unpacked or not."""
    return PayloadTooLarge(f"the body is over {limit} bytes (limits.max_body)")


async def pieces(request: web.Request) -> AsyncGenerator[bytes, None]:
    """Yield the body as it comes, unpacked, after asking for it if need be.

    Raises :class:`PayloadTooLarge` as soon as it is over ``limits.max_body``, and
    :class:`BadRequest` for one that can't be unpacked. Hundreds of pieces may come out of one that
    was read, so the loop turns to other requests between two of them.
    """
    limit = request[CONTEXT].services.limits.max_body
    coding = coding_of(request)
    decoder = DECODERS[coding]() if coding is not None else None
    ask_for(request)
    came = unpacked = 0
    try:
        async for data in request.content.iter_any():
            came += len(data)
            if came > limit:
                raise too_large(limit)
            if decoder is None:
                yield data
                continue
            for piece in decoder.feed(data):
                unpacked += len(piece)
                if unpacked > limit:
                    raise too_large(limit)
                if piece:
                    yield piece
                await asyncio.sleep(0)
        if decoder is not None:
            decoder.end()
    except Damaged as error:
        raise BadRequest(
            f"the body is not {coding}, as its Content-Encoding says: {error}",
            code="malformed_request",
        ) from None


def adapted(request: web.Request) -> tuple[AiohttpRequest, RequestContext]:
    """Return ``request`` as handlers of both protocols see it, and its context."""
    return AiohttpRequest(request, whole_body), request[CONTEXT]


async def whole_body(request: web.Request) -> bytes:
    """Return the whole body: see :func:`pieces`.

    A large body takes memory until the request is answered. Raises
    :class:`gateway.errors.Unavailable` if none is left.
    """
    context = request[CONTEXT]
    length = request.content_length if coding_of(request) is None else None
    if length is not None and length > SMALL:
        await make_room(request, length)
    found: list[bytes] = []
    size = 0
    async for piece in pieces(request):
        found.append(piece)
        size += len(piece)
        if size > SMALL and context.place is None:
            await make_room(request, context.services.limits.max_body)
    if size <= SMALL:
        return b"".join(found)
    if context.place is not None:
        context.place.shrink(_TIMES * size)
    return await WORKERS.joined(found)


async def make_room(request: web.Request, size: int) -> None:
    """Wait for memory for a body of ``size`` bytes, and keep it until the request is answered."""
    context = request[CONTEXT]
    if context.place is None:
        context.place = await context.services.body_memory.take(
            context.principal.key_id, _TIMES * size
        )


async def json_body(request: web.Request, *, or_query: bool = False) -> JsonObject:
    """Return the JSON object in the body of a request for a route of the gateway's own.

    The body must be small. ``or_query``: ``?model=`` may name the model in place of the body, but
    no different one.
    """
    found: list[bytes] = []
    size = 0
    async for piece in pieces(request):
        found.append(piece)
        if (size := size + len(piece)) > _OWN_BODY:
            raise PayloadTooLarge(f"the body is over {_OWN_BODY} bytes, which this route takes")
    try:
        body = parse_object(b"".join(found), _OWN_VALUES)
    except NotJson as error:
        raise no_json(request.headers, error) from None
    beside = request.query.get("model")
    if beside is not None and not (or_query and "model" not in body):
        check_query_model(beside, body.get("model"))
    return body


def refuse_unknown(body: JsonObject, known: Mapping[str, object]) -> None:
    """Raise :class:`BadRequest` for a field of ``body`` that isn't ``known``."""
    if unknown := body.keys() - known.keys():
        raise BadRequest(
            f"unknown field {min(unknown)[:100]!r}; allowed: {', '.join(known)}",
            param=min(unknown)[:100],
        )


def no_json(headers: Mapping[str, str], error: BadRequest) -> BadRequest:
    """Return why a body cannot be parsed: ``error``, or that its Content-Type is not JSON's.

    The type is looked at only now, as many clients send JSON under another, ``curl -d`` too.
    """
    given = headers.get("Content-Type", "")
    kind = given.partition(";")[0].strip().lower()
    if not kind or kind in _PERHAPS_JSON or kind.endswith("+json"):
        return error
    return UnsupportedMediaType(f"this route takes JSON (application/json), not {given[:100]!r}")


def ask_for(request: web.Request) -> None:
    """Tell a client that waits with its body (``Expect: 100-continue``) to send it.

    Called right before it is read: a request that is refused earlier need not be uploaded.
    """
    if is_held_back(request) and request.transport is not None:
        request[_ASKED] = True
        request.transport.write(CONTINUE)


def is_held_back(request: web.Request) -> bool:
    """Return whether the client still waits to be asked for its body."""
    return (
        "Expect" in request.headers
        and request.version >= (1, 1)  # HTTP/1.0 knows no 100
        and request.can_read_body
        and not request.content.is_eof()
        and request.content.total_bytes == 0  # some of it has come: it doesn't wait
        and _ASKED not in request
    )
