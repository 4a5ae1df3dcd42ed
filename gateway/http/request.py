"""What a handler sees of a request, whoever has parsed it: aiohttp, or the front door.

Handlers of routes that only aiohttp serves (forms, administration) ask for ``web.Request``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from aiohttp import web
from multidict import CIMultiDict

from gateway.api.visit import VISIT, Visit
from gateway.proxy.outgoing import Answer, Opened, Opener, by_aiohttp

if TYPE_CHECKING:
    from gateway.http.heads import Head


class Carrier(Protocol):
    """The connection that a request came on."""

    @property
    def transport(self) -> asyncio.Transport:
        """Where its answer goes."""

    def open(
        self, request: FrontRequest, status: int, headers: CIMultiDict[str], length: int | None
    ) -> Coroutine[Any, Any, Opened]:
        """Begin a streamed answer: see :data:`gateway.proxy.outgoing.Opener`."""


class FrontRequest(Visit):
    """A POST over HTTP/1.1 that came whole, and its own :class:`Visit`.

    Otherwise named as in ``aiohttp.web.Request``.
    """

    __slots__ = ("_body", "_carrier", "head", "path", "remote", "secure")

    method = "POST"

    def __init__(
        self, head: Head, body: bytes, carrier: Carrier, remote: str | None, secure: bool
    ) -> None:
        Visit.__init__(self, head.parts, head.personality)
        self.head = head
        self.path = head.path  # its target, which has no query
        self._body = body
        self._carrier = carrier
        self.remote = remote
        self.secure = secure

    @property
    def headers(self) -> CIMultiDict[str]:
        """Its headers."""
        return self.head.headers

    @property
    def transport(self) -> asyncio.Transport:
        """Where its answer goes."""
        return self._carrier.transport

    def take_body(self) -> bytes:
        """The body, once: it isn't kept for as long as its answer takes."""
        body, self._body = self._body, b""
        return body

    def open(
        self, status: int, headers: CIMultiDict[str], length: int | None
    ) -> Coroutine[Any, Any, Opened]:
        """Begin a streamed answer: see :data:`gateway.proxy.outgoing.Opener`."""
        return self._carrier.open(self, status, headers, length)


Request = web.Request | FrontRequest

#: Which of the two a handler takes: any request, or only aiohttp's own.
RequestT = TypeVar("RequestT", web.Request, FrontRequest)
HandlerOf = Callable[[RequestT], Awaitable[Answer]]
AnyHandler = Callable[[Request], Awaitable[Answer]]
Handler = Callable[[web.Request], Awaitable[Answer]]


def visit_of(request: Request) -> Visit:
    """What is known of ``request``."""
    return request if isinstance(request, FrontRequest) else request[VISIT]


def opener(request: Request) -> Opener:
    """What begins a streamed answer to ``request``."""
    return request.open if isinstance(request, FrontRequest) else by_aiohttp(request)
