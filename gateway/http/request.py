"""The interface of a request, whichever protocol parsed it: aiohttp, or fast JSON.

Handlers that both protocols serve ask for a :class:`Request`. Those of routes that only aiohttp
serves (forms, administration) ask for ``web.Request``, which is a :class:`RequestHead`, too.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from aiohttp import HttpVersion11, web
from multidict import CIMultiDict, MultiDict, MultiDictProxy, MultiMapping

from gateway.http.response import Answer, BufferedResponse, Context, StartedResponse

#: The beginning of request ids, which answers (``X-Request-Id``) and the log carry.
_PREFIX = f"req_{secrets.token_hex(4)}"
#: Numbers with nine hexadecimal digits, of which the last eight are used: cutting off the first
#: costs a fifth of padding by a format.
_numbers = itertools.count(0x1_0000_0001)


class RequestHead(Protocol):
    """The head of a request: what is known before its body is read."""

    @property
    def method(self) -> str:
        """The method."""

    @property
    def path(self) -> str:
        """The target without its query."""

    @property
    def version(self) -> tuple[int, int]:
        """The version of HTTP that the client speaks."""

    @property
    def headers(self) -> MultiMapping[str]:
        """The header fields."""

    @property
    def query(self) -> MultiMapping[str]:
        """The parameters of the query."""

    @property
    def remote(self) -> str | None:
        """The address that the connection came from; None: a Unix socket."""

    @property
    def secure(self) -> bool:
        """Whether it came over TLS."""

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport of its answer; None if its client has gone."""

    @property
    def can_read_body(self) -> bool:
        """Whether it has a body."""


class Request(RequestHead, Protocol):
    """A request that a handler answers."""

    async def body(self) -> bytes:
        """Return the whole body, unpacked; to be called once."""

    def start_response(
        self, status: int, headers: CIMultiDict[str], length: int | None, /
    ) -> Awaitable[StartedResponse]:
        """Begin a streamed answer: see :data:`gateway.http.response.StartResponse`."""


class KeptHead(Protocol):
    """A cached head: see :class:`gateway.http.heads.Head`."""

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
        """The transport of its answer."""

    def start_response(
        self, request: FastRequest, status: int, headers: CIMultiDict[str], length: int | None
    ) -> Coroutine[Any, Any, StartedResponse]:
        """Begin a streamed answer: see :data:`gateway.http.response.StartResponse`."""


class FastRequest:
    """A complete POST over HTTP/1.1, served by the fast JSON protocol."""

    __slots__ = ("_body", "_carrier", "context", "head", "remote", "secure")

    method = "POST"
    version = HttpVersion11
    query: MultiDictProxy[str] = MultiDictProxy(MultiDict())

    def __init__(
        self, head: KeptHead, body: bytes, carrier: Carrier, remote: str | None, secure: bool
    ) -> None:
        self.head = head
        self._body = body
        self._carrier = carrier
        self.remote = remote
        self.secure = secure
        #: The request's context, set by the application.
        self.context: Context | None = None

    @property
    def path(self) -> str:
        """The target, which has no query."""
        return self.head.path

    @property
    def headers(self) -> CIMultiDict[str]:
        """The header fields."""
        return self.head.headers

    @property
    def can_read_body(self) -> bool:
        """Whether it has a body."""
        return bool(self._body)

    @property
    def transport(self) -> asyncio.Transport:
        """The transport of its answer."""
        return self._carrier.transport

    async def body(self) -> bytes:
        """Return the body, once: it isn't kept for as long as its answer takes."""
        body, self._body = self._body, b""
        return body

    def start_response(
        self, status: int, headers: CIMultiDict[str], length: int | None
    ) -> Coroutine[Any, Any, StartedResponse]:
        """Begin a streamed answer: see :data:`gateway.http.response.StartResponse`."""
        return self._carrier.start_response(self, status, headers, length)


#: Answers requests of a route that only aiohttp serves.
Handler = Callable[[web.Request], Awaitable[Answer]]
#: Answers the requests with one head: see :class:`gateway.http.heads.Head`.
Endpoint = Callable[[FastRequest], Coroutine[Any, Any, BufferedResponse | StartedResponse]]


def new_id() -> str:
    """Return an id that no other request of this process has."""
    return _PREFIX + hex(next(_numbers))[3:]
