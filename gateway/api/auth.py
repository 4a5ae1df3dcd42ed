"""Who is asking: the key of a request, and whether it may do this.

A key comes as ``Authorization: Bearer K`` (RFC 6750), ``X-Api-Key: K``, or, on GET and where the
configuration allows it, ``?authKey=K``, because a browser's EventSource cannot send headers.
"""

from __future__ import annotations

import enum
import socket
import time

from gateway.api.context import DOOR, SETTINGS
from gateway.api.hosts import PROXIES
from gateway.api.keys import ANONYMOUS, LOCAL_ADMIN, Principal, UnknownKey
from gateway.api.request import Request
from gateway.errors import Forbidden, Unauthorized


class Scope(enum.Enum):
    """What a route asks of who calls it."""

    PUBLIC = "public"  # no key
    CHAT = "chat"  # any valid key
    ADMIN = "admin"  # a key made with --admin


def authenticate(request: Request) -> Principal | None:
    """The principal behind ``request``; None as long as the store has not been opened.

    Raises :class:`Unauthorized`; :class:`gateway.errors.RateLimited` to who seems to guess.
    """
    app = request.app
    auth, door = app[SETTINGS].auth, app[DOOR]
    if not auth.enabled:
        return ANONYMOUS
    key = presented_key(request, allow_query=auth.allow_query_key)
    if key is None:
        if door.control is not None and _came_by(request, door.control):
            return LOCAL_ADMIN
        raise Unauthorized(
            "no API key was sent: use the header `Authorization: Bearer KEY`. Keys are made with "
            "`llm-gateway keys create NAME`"
        )
    ring = door.ring
    if ring is None:
        return None
    now = time.time()
    try:
        principal = ring.find(key, now)
    except UnknownKey:
        door.wrong_keys.wrong(app[PROXIES].client(request))
        raise
    if principal.guessable:
        door.wrong_keys.right(app[PROXIES].client(request), principal.key_id)
    ring.touch(principal.key_id, now)
    return principal


def authorise(principal: Principal, scope: Scope) -> None:
    """Raise :class:`Forbidden` if ``principal`` lacks the right that ``scope`` asks for."""
    if scope is Scope.ADMIN and not principal.admin:
        raise Forbidden(
            "this needs an admin key: `llm-gateway keys create NAME --admin` makes one",
            code="admin_key_required",
        )


def presented_key(request: Request, *, allow_query: bool) -> str | None:
    """The key that came with the request, unchecked."""
    authorization = request.headers.get("Authorization")
    if (
        authorization is not None
        and authorization[:7].lower() == "bearer "
        and (key := authorization[7:].strip())
    ):
        return key
    if key := request.headers.get("X-Api-Key", "").strip():
        return key
    if allow_query and request.method == "GET" and "authKey" in request.rel_url.raw_query_string:
        return request.rel_url.query.get("authKey") or None
    return None


def _came_by(request: Request, path: str) -> bool:
    transport = request.transport
    if transport is None or not hasattr(socket, "AF_UNIX"):
        return False
    return bool(transport.get_extra_info("sockname") == path)
