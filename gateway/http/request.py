"""A request, whoever has parsed it: aiohttp, or the fast JSON protocol.

Handlers of routes that only aiohttp serves (forms, administration) ask for ``web.Request``. What
the two have in common is named as in ``aiohttp.web.Request``: method, path, version, headers,
query, remote, secure, transport. Where they differ, a function of this module does it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any, Protocol

from aiohttp import HttpVersion11, web
from multidict import CIMultiDict, MultiDict, MultiDictProxy

from gateway.http.response import Answer, StartedResponse, StartResponse, by_aiohttp


class RequestHead(Protocol):
    """What is kept of a head: see :class:`gateway.http.heads.Head`."""

    @property
    def path(self) -> str:
        """The target, which has no query."""

    @property
    def headers(self) -> CIMultiDict[str]:
        """The header fields."""


class Carrier(Protocol):
    """The connection that a request came on."""

    @property
    def transport(self) -> asyncio.Transport:
        """Where its answer goes."""

    def open(
        self, request: FastRequest, status: int, headers: CIMultiDict[str], length: int | None
    ) -> Coroutine[Any, Any, StartedResponse]:
        """Begin a streamed answer: see :data:`gateway.http.response.StartResponse`."""


class Context(Protocol):
    """What the application knows of a request while it is answered."""

    def answer_headers(self) -> Collection[tuple[str, str]]:
        """The header fields of its answer that say what became of this very request."""


class FastRequest:
    """A POST over HTTP/1.1 that came whole."""

    __slots__ = ("_body", "_carrier", "context", "head", "remote", "secure")

    method = "POST"
    version = HttpVersion11
    query: MultiDictProxy[str] = MultiDictProxy(MultiDict())

    def __init__(
        self, head: RequestHead, body: bytes, carrier: Carrier, remote: str | None, secure: bool
    ) -> None:
        self.head = head
        self._body = body
        self._carrier = carrier
        self.remote = remote
        self.secure = secure
        #: Set by the application as soon as it has one.
        self.context: Context | None = None

    @property
    def path(self) -> str:
        """Its target, which has no query."""
        return self.head.path

    @property
    def headers(self) -> CIMultiDict[str]:
        """Its headers."""
        return self.head.headers

    @property
    def can_read_body(self) -> bool:
        """Whether it has a body."""
        return bool(self._body)

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
    ) -> Coroutine[Any, Any, StartedResponse]:
        """Begin a streamed answer: see :data:`gateway.http.response.StartResponse`."""
        return self._carrier.open(self, status, headers, length)


Request = web.Request | FastRequest

Handler = Callable[[web.Request], Awaitable[Answer]]
AnyHandler = Callable[[Request], Awaitable[Answer]]
#: Answers the requests with one head: see :class:`gateway.http.heads.Head`.
Endpoint = Callable[[FastRequest], Coroutine[Any, Any, Answer]]


def start_response(request: Request) -> StartResponse:
    """What begins a streamed answer to ``request``."""
    return request.open if isinstance(request, FastRequest) else by_aiohttp(request)
