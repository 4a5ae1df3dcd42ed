"""OpenAI's inference routes: the body is parsed once, resolved, given its personality, relayed."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gateway.api.accounting import Metered
from gateway.api.context import (
    ERRORS,
    LIBRARY,
    MODEL,
    PERSONALITY,
    PRINCIPAL,
    REQUEST_ID,
    SCHEDULER,
)
from gateway.errors import BadRequest, Forbidden, ModelNotFound
from gateway.library import Library
from gateway.proxy.body import JsonObject, parse_object, serialise, with_responses
from gateway.proxy.personality import apply_to_chat, check_messages
from gateway.proxy.relay import Call, Outcome, relay
from gateway.proxy.resolve import Target

_JSON = b"Content-Type: application/json\r\n"


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """POST /v1/chat/completions (OpenAI reference, Chat Completions), and without /v1.

    Not streaming, the answer also has ``responses``, the text, which clients of the old system
    read.
    """
    raw = await request.read()
    body = parse_object(raw)
    check_messages(body)
    target = await resolve(request, body)
    changed = body.pop("personality", None) is not None
    if target.prompt is not None:
        apply_to_chat(body, target.prompt)
        changed = True
    for key, value in target.defaults.items():
        if key not in body:
            body[key] = value
            changed = True
    call = Call(
        target.spec.name,
        "POST",
        "/v1/chat/completions",
        _JSON,
        serialise(body) if changed else raw,
        rewrite=with_responses,
    )
    return await send(request, call)


async def send(request: web.Request, call: Call) -> web.StreamResponse:
    """Relay ``call`` as far as the key's limits allow, and note what became of it."""
    outcome = Outcome()
    try:
        with Metered(request, outcome) as metered:
            response = await relay(request, request.app[SCHEDULER], call, outcome)
            metered.status = response.status
            return response
    finally:
        if outcome.error is not None:
            request.app[ERRORS].add(
                outcome.error.message,
                code=outcome.error.code,
                model=call.model,
                request_id=request.get(REQUEST_ID),
            )


async def resolve(request: web.Request, body: JsonObject, *, anew: bool = False) -> Target:
    """The model and personality that ``body`` and the headers of ``request`` mean.

    ``anew``: without regard to what ``/loadModel`` chose before.

    Raises :class:`ModelNotFound`; :class:`Forbidden` where the key may not use the model.
    """
    library = request.app[LIBRARY]
    choice = body.get("personality")
    if choice is None:
        choice = request.headers.get("X-Personality")
    elif not isinstance(choice, str):
        raise BadRequest("`personality` must be a text", param="personality")
    try:
        target = _resolve(request, library, body.get("model"), choice, anew)
    except ModelNotFound:
        # Perhaps it was added to models.json a moment ago.
        await library.refresh()
        target = _resolve(request, library, body.get("model"), choice, anew)
    request[MODEL] = target.spec.name
    if target.personality is not None:
        request[PERSONALITY] = target.personality
    return target


def _resolve(
    request: web.Request, library: Library, model: Any, choice: str | None, anew: bool
) -> Target:
    principal = request[PRINCIPAL]
    target = library.resolver.resolve(
        model,
        choice=choice,
        active=None if anew else library.active,
        default=principal.default_personality,
    )
    if principal.models is not None and target.spec.name not in principal.models:
        raise Forbidden(f"this key may not use the model {target.spec.name!r}")
    if (
        principal.personalities is not None
        and target.personality is not None
        and target.personality not in principal.personalities
    ):
        raise Forbidden(f"this key may not use the personality {target.personality!r}")
    return target
