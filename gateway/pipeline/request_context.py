"""The context of one request: what becomes known about it while it is answered."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable

from aiohttp import web

from gateway.access.body_memory import BodyPlace
from gateway.access.principal import NOBODY, Principal
from gateway.access.rate_limits import LimitGrant
from gateway.errors import GatewayError
from gateway.http.request import Request, new_id
from gateway.http.response import Answer
from gateway.pipeline.services import Services
from gateway.scope import Scope


class RequestContext:
    """The context of a request: its id, its principal, and where it went.

    ``named``: the personality that its headers name (``X-Personality``).
    """

    __slots__ = (
        "grant",
        "id",
        "model",
        "named",
        "personality",
        "place",
        "principal",
        "scope",
        "services",
        "watches",
    )

    def __init__(self, services: Services, named: str | None) -> None:
        self.services = services
        self.id = new_id()
        self.named = named
        self.principal: Principal = NOBODY
        #: The right that its route needs.
        self.scope = Scope.PUBLIC
        #: Whether it is a stream of events, which keeps showing what its key may see.
        self.watches = False
        #: The model that answers it, for the answer's header and the log, and its personality.
        self.model: str | None = None
        self.personality: str | None = None
        #: The admission by a key with limits, for the answer's headers; None for other keys.
        self.grant: LimitGrant | None = None
        #: The room in memory of a large body, until the request is answered; None for small ones.
        self.place: BodyPlace | None = None

    def tell(self, error: GatewayError) -> GatewayError:
        """Return ``error`` as the principal may see it."""
        return error.told(in_full=self.principal.may(Scope.ADMIN), request_id=self.id)

    def hand_over(self) -> None:
        """Leave to the work on its answer, which outlives it, what it holds: see
        :meth:`release`, of a copy.
        """
        self.grant = self.place = None

    def release(self, status: int) -> None:
        """Give back what it holds: it was answered with ``status``."""
        if self.grant is not None:
            self.grant.answered(status)
        if self.place is not None:
            self.place.give_back()

    def answer_headers(self) -> list[tuple[str, str]]:
        """Return the header fields of its answer that say what became of this very request."""
        found = [("X-Request-Id", self.id)]
        if self.model is not None:
            found.append(("X-Gateway-Model", _header_text(self.model)))
        if self.grant is not None:
            found.extend(self.grant.headers().items())
        return found


@functools.lru_cache(256)
def _header_text(text: str) -> str:
    """Return a name as a header value: printable ASCII as it is, the rest percent-encoded."""
    if text.isascii() and text.isprintable():
        return text
    from urllib.parse import quote

    return quote(text, safe=" !#$&'()*+,/:;=?@[]~")


#: Where a request that aiohttp serves keeps its context; one of the fast protocol has an attribute.
CONTEXT = web.RequestKey("context", RequestContext)

#: A handler of requests of both protocols.
CommonHandler = Callable[[Request, RequestContext], Awaitable[Answer]]
