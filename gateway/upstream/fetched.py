"""A small answer, collected as a whole."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from gateway.upstream.answer import ResponseHead
from gateway.upstream.errors import ProtocolError, UpstreamError

#: The default limit of a body, in bytes.
MAX_BODY: Final = 4 * 2**20


class Fetched(NamedTuple):
    """A whole answer."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Collector:
    """A sink that makes a :class:`Fetched` of what comes, up to ``limit`` bytes of body."""

    __slots__ = ("_body", "_head", "_limit", "_name", "done")

    _head: ResponseHead

    def __init__(self, done: asyncio.Future[Fetched], limit: int, name: str) -> None:
        self.done = done
        self._limit = limit
        self._name = name
        self._body = bytearray()

    def on_head(self, head: ResponseHead) -> None:
        self._head = head

    def on_body(self, data: bytes) -> None:
        if len(self._body) + len(data) <= self._limit:
            self._body += data
        else:
            self.on_error(ProtocolError(f"{self._name} answered with over {self._limit} bytes"))

    def on_end(self) -> None:
        if not self.done.done():
            head = self._head
            self.done.set_result(Fetched(head.status, head.headers, bytes(self._body)))

    def on_error(self, error: UpstreamError) -> None:
        if not self.done.done():
            self.done.set_exception(error)
