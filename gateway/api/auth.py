"""Who is asking: the key of a request, and whether it may do this.

A key comes as ``Authorization: Bearer K`` (RFC 6750), ``X-Api-Key: K``, or, on GET and where the
configuration allows it, ``?authKey=K``, because a browser's EventSource cannot send headers. The
first of these that holds a key counts. Nothing, a scheme alone, and the words that clients send
for want of a key (:data:`gateway.access.key_format.PLACEHOLDERS`) are none: they are refused as a
request without a key is, and don't count as guesses.
"""

from __future__ import annotations

import enum
import socket
import time
from collections.abc import Mapping
from typing import Final

from aiohttp import web

from gateway.access.key_format import is_placeholder
from gateway.access.keys import ANONYMOUS, LOCAL_ADMIN, Principal, UnknownKey
from gateway.access.principal import VISITOR
from gateway.api.parts import Parts
from gateway.api.visit import Visit
from gateway.api.without_keys import refusal
from gateway.errors import Forbidden, Unauthorized
from gateway.http.request import FrontRequest, Request


class Scope(enum.Enum):
    """What a route asks of who calls it."""

    PUBLIC = "public"  # no key
    CHAT = "chat"  # any valid key
    ADMIN = "admin"  # a key made with --admin


#: Asked on every request; in an enumeration it has to be looked for.
PUBLIC: Final = Scope.PUBLIC
_ADMIN: Final = Scope.ADMIN


def admit(request: Request, visit: Visit, scope: Scope) -> bool:
    """Find out who asks, and whether they may; False as long as the store has not been opened.

    Raises :class:`Unauthorized`, :class:`Forbidden`; :class:`gateway.errors.RateLimited` to who
    seems to guess.
    """
    parts = visit.parts
    if not parts.keys_needed:
        visit.principal = _without_key(request, parts, scope)
        return True
    principal = _authenticate(request, parts)
    if principal is None:
        return False
    visit.principal = principal
    if scope is _ADMIN:
        visit.needs_admin = True
        if not principal.admin:
            raise Forbidden(
                "this needs an admin key: `llm-gateway keys create NAME --admin` makes one",
                code="admin_key_required",
            )
    return True


def _without_key(request: Request, parts: Parts, scope: Scope) -> Principal:
    """Who asks where nobody has to say it. Raises :class:`Forbidden`."""
    control = parts.door.control
    if control is not None and _came_by(request, control):
        return LOCAL_ADMIN
    reason = refusal(request, parts)
    if reason is None:
        return ANONYMOUS
    if scope is _ADMIN:
        raise Forbidden(
            "without keys (auth.enabled: false) this is only for programs on the gateway's own "
            f"machine: {reason}",
            code="local_only",
        )
    return VISITOR


def _authenticate(request: Request, parts: Parts) -> Principal | None:
    door = parts.door
    if isinstance(request, FrontRequest):
        key = request.head.key
    else:
        key = presented_key(request, allow_query=parts.keys_in_queries)
    if key is None:
        if door.control is not None and _came_by(request, door.control):
            return LOCAL_ADMIN
        raise Unauthorized(
            f"no API key was sent{_why_none(request, parts)}: use the header "
            "`Authorization: Bearer KEY`. Keys are made with `llm-gateway keys create NAME`"
        )
    ring = door.ring
    if ring is None:
        return None
    now = time.time()
    try:
        principal = ring.find(key, now)
    except UnknownKey:
        door.wrong_keys.wrong(parts.proxies.client(request))
        raise
    if principal.guessable:
        door.wrong_keys.right(parts.proxies.client(request), principal.key_id)
    ring.touch(principal.key_id, now)
    return principal


def _why_none(request: Request, parts: Parts) -> str:
    """What makes a request without a key of one that was meant to have it, in brackets."""
    if not isinstance(request, FrontRequest) and "authKey" in request.rel_url.query:
        if not parts.keys_in_queries:
            return " (?authKey is switched off here, see auth.allow_query_key)"
        if request.method != "GET":
            return " (?authKey is taken with GET only)"
    authorization = request.headers.get("Authorization", "").strip()
    if authorization and authorization[:6].lower() != "bearer":
        return " (Authorization holds no `Bearer`)"
    return " (or only a word like null in its place)"


def presented_key(request: web.Request, *, allow_query: bool) -> str | None:
    """The key that came with the request, unchecked."""
    if (key := key_in(request.headers)) is not None:
        return key
    if allow_query and request.method == "GET" and "authKey" in request.rel_url.raw_query_string:
        return _a_key(request.rel_url.query.get("authKey", ""))
    return None


def key_in(headers: Mapping[str, str]) -> str | None:
    """The key in a request's headers, unchecked."""
    authorization = headers.get("Authorization")
    if (
        authorization is not None
        and authorization[:7].lower() == "bearer "
        and (key := _a_key(authorization[7:].strip())) is not None
    ):
        return key
    return _a_key(headers.get("X-Api-Key", "").strip())


def _a_key(text: str) -> str | None:
    return text if text and not is_placeholder(text) else None


def _came_by(request: Request, path: str) -> bool:
    transport = request.transport
    if transport is None or not hasattr(socket, "AF_UNIX"):
        return False
    return bool(transport.get_extra_info("sockname") == path)
