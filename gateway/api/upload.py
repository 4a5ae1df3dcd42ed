"""Forms with a file (audio transcription): streamed to llama-server as they come.

The model is named by ``?model=``, by the header ``X-Model``, or by the form's field ``model``.
Where that field comes before the file, nothing is collected. Some clients (openai's for Node
among them) send the file first; then up to :data:`FILE_FIRST` bytes are kept until the field
comes, which is OpenAI's own limit for such files. What is longer must name its model otherwise.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from aiohttp import web

from gateway.api.choosing import resolve
from gateway.api.inference import send
from gateway.errors import BadRequest, Unable
from gateway.http.request import Handler
from gateway.http.response import Answer
from gateway.pipeline.reading import adapted, coding_of, make_room, pieces
from gateway.pipeline.request_context import CONTEXT
from gateway.proxy.call import Call, StreamedBody
from gateway.proxy.form import ModelField, boundary_of, content_type_of
from gateway.proxy.routes import RelayedRoute
from gateway.workers import SMALL

#: Bytes (OpenAI reference, "Create transcription": files up to 25 MB).
FILE_FIRST = 25 * 2**20


def form_handler(route: RelayedRoute) -> Handler:
    """Return the handler of a route whose model stands in a form."""

    async def handle(request: web.Request) -> Answer:
        boundary = boundary_of(request.headers.get("Content-Type", ""))
        named = _named(request)
        most, refused = _bounds(request)
        field = ModelField(boundary, named, refused)
        body = pieces(request)
        if named is None:
            await _look_for(request, field, body)
            if not field.done:
                raise BadRequest(
                    f"no model is named in the first {FILE_FIRST} bytes: put the field `model` "
                    "before the file, or send ?model=NAME or the header X-Model",
                    param="model",
                )
        target = await resolve(request[CONTEXT], {"model": named or field.model})
        if route.needs in target.lacks:
            raise Unable(target.lacks[route.needs], param="model")
        first = field.body
        length = request.content_length if coding_of(request) is None else None
        if (name := target.sent_as) is not None:
            # A remote server reads the field, and may call the model otherwise.
            if named is not None:
                await _look_for(request, field, body)
            first = field.renamed(name)
            if length is not None:
                length += len(first) - len(field.body)
        if most is not None:
            part = field.part(b"max_tokens", b"%d" % most)
            first = part + first
            if length is not None:
                length += len(part)
        field.pass_by(b"")
        headers = b"Content-Type: %b\r\n" % content_type_of(boundary)
        call = Call(
            target.name,
            "POST",
            route.target,
            headers,
            StreamedBody(_chained(first, _watched(field, body))),
            body_length=length,
            stream=None,
            dialect=route.dialect,
            renamed=target.name if name is not None else None,
        )
        context = request[CONTEXT]
        if (conversations := context.services.conversations) is not None and name is None:
            call.turn = conversations.stray(context.principal.key_id)
        return await send(*adapted(request), call)

    return handle


def _bounds(request: web.Request) -> tuple[int | None, Mapping[bytes, str]]:
    """Return the limit of the answer's tokens, if any, and which fields the form must not have."""
    context = request[CONTEXT]
    bounds = context.services.bounds
    most, whose = bounds.longest(context.principal.limits.max_tokens)
    if most is None:
        return None, bounds.not_in_forms
    why = f"`max_tokens` is {most} here ({whose}): leave it out of the form"
    return most, {**bounds.not_in_forms, b"max_tokens": why}


def _named(request: web.Request) -> str | None:
    """Return the model that the request names outside of the form."""
    query, header = request.query.get("model"), request.headers.get("X-Model")
    if query and header and query != header:
        raise BadRequest("?model= and the header X-Model name two models", param="model")
    return query or header


async def _look_for(
    request: web.Request, field: ModelField, body: AsyncGenerator[bytes, None]
) -> None:
    """Read until the field has been found, or the form has ended, or there is too much of it."""
    async for piece in body:
        field.feed(piece)
        if field.done or len(field.read) > FILE_FIRST:
            break
        if len(field.read) > SMALL:
            await make_room(request, FILE_FIRST)


async def _watched(
    field: ModelField, body: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """Yield ``body``; raise if a field comes twice, or another model is named."""
    async for piece in body:
        field.pass_by(piece)
        yield piece


async def _chained(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    if first:
        yield first
    async for piece in rest:
        yield piece
