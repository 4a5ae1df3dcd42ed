"""What a handler sees of a request, whoever has parsed it: aiohttp, or the front door.

Handlers of routes that only aiohttp serves (forms, administration) ask for ``web.Request``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from aiohttp import HttpVersion, HttpVersion11, web
from multidict import CIMultiDict
from yarl import URL

from gateway.proxy.outgoing import Answer, Opened, Opener, by_aiohttp


class FrontRequest(dict[Any, Any]):
    """A POST over HTTP/1.1 that came whole; a dictionary of its :class:`web.RequestKey`.

    Named as in ``aiohttp.web.Request``.
    """

    __slots__ = (
        "_body",
        "_open",
        "app",
        "headers",
        "keep_alive",
        "path",
        "remote",
        "secure",
        "transport",
    )

    method = "POST"
    version: HttpVersion = HttpVersion11

    def __init__(
        self,
        app: web.Application,
        path: str,
        headers: CIMultiDict[str],
        body: bytes,
        transport: asyncio.Transport,
        remote: str | None,
        secure: bool,
        begin: Callable[
            [FrontRequest, int, CIMultiDict[str], int | None], Coroutine[Any, Any, Opened]
        ],
        *,
        keep_alive: bool,
    ) -> None:
        self.app = app
        self.path = path
        self.headers = headers
        self._body = body
        self.transport = transport
        self.remote = remote
        self.secure = secure
        self._open = begin
        self.keep_alive = keep_alive

    @property
    def rel_url(self) -> URL:
        """Its target, which has no query."""
        return URL.build(path=self.path)

    async def read(self) -> bytes:
        """The body, once: it isn't kept for as long as its answer takes."""
        body, self._body = self._body, b""
        return body

    def open(
        self, status: int, headers: CIMultiDict[str], length: int | None
    ) -> Coroutine[Any, Any, Opened]:
        """Begin a streamed answer: see :data:`gateway.proxy.outgoing.Opener`."""
        return self._open(self, status, headers, length)


Request = web.Request | FrontRequest

#: Which of the two a handler takes: any request, or only aiohttp's own.
RequestT = TypeVar("RequestT", web.Request, FrontRequest)
HandlerOf = Callable[[RequestT], Awaitable[Answer]]
AnyHandler = Callable[[Request], Awaitable[Answer]]
Handler = Callable[[web.Request], Awaitable[Answer]]


def opener(request: Request) -> Opener:
    """What begins a streamed answer to ``request``."""
    return request.open if isinstance(request, FrontRequest) else by_aiohttp(request)
