"""An HTTP client that tells exactly how an answer ended: whole, cut short, or not begun at all."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from dataclasses import dataclass, field
from typing import Any

import httptools


@dataclass(slots=True)
class Answer:
    """What came of a request. Times are those of :func:`time.monotonic`."""

    asked: float
    status: int = 0
    body: list[bytes] = field(default_factory=list)
    #: Bytes that came, head included.
    received: int = 0
    #: Whether it ended as its head said it would.
    complete: bool = False
    ended: float = 0.0

    @property
    def text(self) -> bytes:
        """The body as far as it came."""
        return b"".join(self.body)

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.text)


def request(method: str, path: str, key: str, body: bytes = b"") -> bytes:
    """A request as it is sent."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


class Connection(asyncio.Protocol):
    """A connection for one request after the other."""

    def __init__(self) -> None:
        self.asked = 0
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._over: asyncio.Future[None] | None = None
        self._more = asyncio.Event()
        self._parser = httptools.HttpResponseParser(self)

    @classmethod
    async def open(cls, port: int, trust: ssl.SSLContext | None) -> Connection:
        """Connect. Raises OSError (also for a TLS handshake that fails)."""
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(
            cls, "127.0.0.1", port, ssl=trust, ssl_handshake_timeout=120 if trust else None
        )
        return made

    @property
    def closed(self) -> bool:
        """Whether another request needs another connection."""
        return self._transport is None or self._transport.is_closing()

    @property
    def certificate(self) -> bytes:
        """The server's, DER."""
        assert self._transport is not None
        found: bytes = self._transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return found

    def send(self, data: bytes) -> None:
        """Send ``data`` as it is, and expect nothing."""
        assert self._transport is not None
        self._transport.write(data)

    def begin(self, data: bytes) -> Answer:
        """Send a request; its answer becomes more until :meth:`end` returns."""
        answer = self._answer = Answer(time.monotonic())
        self._over = asyncio.get_running_loop().create_future()
        self.asked += 1
        if self.closed:
            self._end()
        else:
            self.send(data)
        return answer

    async def end(self) -> None:
        """Return when the answer has ended, well or badly."""
        assert self._over is not None
        await self._over

    async def ask(self, data: bytes) -> Answer:
        """Send a request, and return its answer when it has ended, well or badly."""
        answer = self.begin(data)
        await self.end()
        return answer

    async def some(self, pieces: int) -> None:
        """Return when so many further pieces of the answer have come, or it has ended."""
        assert self._over is not None
        for _ in range(pieces):
            self._more.clear()
            if self._over.done():
                return
            await self._more.wait()

    def stop_reading(self) -> None:
        """Take nothing more of what comes."""
        if not self.closed:
            assert self._transport is not None
            self._transport.pause_reading()

    def half_close(self) -> None:
        """Say that nothing more will be sent (not over TLS, which has no such thing)."""
        if not self.closed:
            assert self._transport is not None
            if self._transport.can_write_eof():
                self._transport.write_eof()

    def abort(self) -> None:
        """Go at once."""
        if self._transport is not None:
            self._transport.abort()
        self._end()

    # --- what the event loop and the parser call -------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self.abort()  # nothing was asked for
            return
        self._answer.received += len(data)
        self._more.set()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._end()

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._answer is not None and status >= 200:
            self._answer.status = status

    def on_body(self, data: bytes) -> None:
        if self._answer is not None:
            self._answer.body.append(data)

    def on_message_complete(self) -> None:
        if self._answer is None or self._answer.status == 0:
            return  # 100 Continue
        self._answer.complete = True
        if not self._parser.should_keep_alive() and self._transport is not None:
            self._transport.close()
        self._end()

    def _end(self) -> None:
        self._more.set()
        if self._over is not None and not self._over.done():
            assert self._answer is not None
            self._answer.ended = time.monotonic()
            self._answer = None
            self._over.set_result(None)
