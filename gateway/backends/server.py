"""One remote server of a model: its connections, the headers that it needs, and its health."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from gateway import __version__
from gateway.backends.backend import ServerStatus
from gateway.backends.health import quoted
from gateway.errors import BackendError, GatewayError
from gateway.models.endpoints import Endpoint
from gateway.tasks import cancel_and_wait, spawn_lasting
from gateway.upstream import (
    ConnectTimeout,
    Exchange,
    Fetched,
    HeadTimeout,
    ResponseHead,
    ResponseSink,
    TcpAddress,
    UpstreamError,
    UpstreamPool,
    UpstreamRequest,
)

#: Seconds within which a health check must be answered, and a connection made, TLS included.
_HEALTH_TIMEOUT = 5.0
_CONNECT_TIMEOUT = 5.0
#: The most bytes of a list of models: providers of many models have long lists.
_LONGEST_LIST = 32 * 2**20
#: The names of the context size in servers' lists: ours, vLLM's, OpenRouter's.
_CONTEXT_SIZES = ("context_size", "max_model_len", "context_length")


class KeyRefused(UpstreamError, BackendError):
    """502: the server wants another key. As a 401, a client would take it for its own key."""

    default_code = "upstream_key_refused"
    retryable = False

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} refuses the gateway's key (`key` in models.json)")


@dataclass(frozen=True, slots=True)
class Tempo:
    """The seconds between two looks at a server: while it is up, and, doubling, while
    it is down.
    """

    interval: float = 30.0
    backoff_first: float = 0.5
    backoff_cap: float = 60.0


class Server:
    """A remote server, and the task that looks whether it is up.

    ``name`` is what errors for clients call it: they don't tell them where it is.
    ``head_timeout``: seconds that it may take until an answer begins. ``changed`` is called after
    every look that brought something new.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        key: str | None,
        context: ssl.SSLContext | None,
        *,
        name: str,
        max_connections: int,
        head_timeout: float,
        tempo: Tempo,
        changed: Callable[[Server], None],
    ) -> None:
        self.endpoint = endpoint
        self.name = name
        #: The context size, in tokens, of each model there, as far as its list tells.
        self.contexts: dict[str, int] = {}
        self.up: bool | None = None  # not known yet
        self.error: str | None = None
        self.timed_out = False
        #: Whether it is down for a reason that any request would meet again.
        self.useless = False
        self.retry_at = 0.0
        self.pool = UpstreamPool(
            TcpAddress(
                endpoint.host,
                endpoint.port,
                context if endpoint.tls else None,
                endpoint.authority,
            ),
            max_connections=max_connections,
            connect_timeout=_CONNECT_TIMEOUT,
            name=name,
        )
        self._authenticated = key is not None
        self._lines = (f"User-Agent: llm-gateway/{__version__}\r\n").encode("ascii")
        if key is not None:
            self._lines += f"Authorization: Bearer {key}\r\n".encode("ascii")
        #: The same, for answers that the gateway itself reads.
        self._plain_lines = self._lines + b"Accept-Encoding: identity\r\n"
        self._head_timeout = head_timeout
        self._tempo = tempo
        self._changed = changed
        self._failures = 0
        self._wake = asyncio.Event()
        self._looked = asyncio.Event()  # set, and replaced, after every look
        self._watching = spawn_lasting(self._watch, name=f"watch {name}")

    async def send(self, request: UpstreamRequest, sink: ResponseSink) -> Exchange:
        """See :meth:`UpstreamPool.send`. It adds the headers that this server needs.

        The sink hears :class:`KeyRefused` instead of a 401.
        """
        here = self._here(request, self._head_timeout)
        return await self.pool.send(here, _KeyGuard(sink, self.name))

    async def fetch(self, request: UpstreamRequest, *, timeout: float, max_body: int) -> Fetched:
        """See :meth:`UpstreamPool.fetch`. It adds those headers, too; 401 is for the caller to
        judge.
        """
        return await self.pool.fetch(self._here(request), timeout=timeout, max_body=max_body)

    def _here(self, request: UpstreamRequest, head_timeout: float | None = None) -> UpstreamRequest:
        """Return ``request`` as this server wants it."""
        return UpstreamRequest(
            request.method,
            self.endpoint.target(request.target),
            self._lines_for(request.headers) + request.headers,
            request.body,
            request.body_length,
            head_timeout,
        )

    def _lines_for(self, headers: bytes) -> bytes:
        # `find`, not `in`: see gateway.proxy.body.
        return self._lines if headers.find(b"Accept-Encoding: ") >= 0 else self._plain_lines

    @property
    def in_flight(self) -> int:
        """The number of requests at it."""
        return self.pool.exchanges

    def look_again(self) -> asyncio.Event:
        """Check its health now. The returned event is set when that is done."""
        self._wake.set()
        return self._looked

    def refused(self, error: UpstreamError) -> None:
        """Note that a request could not be sent to it: it is down until a health check succeeds."""
        if self.up:
            self._note(error)
            self._wake.set()

    def status(self) -> ServerStatus:
        """Return its present status."""
        return ServerStatus(
            url=self.endpoint.url,
            up=self.up is True,
            in_flight=self.pool.exchanges,
            error=self.error,
            retry_in=max(0.0, self.retry_at - time.monotonic()) if self.up is False else None,
        )

    async def close(self) -> None:
        """Look no more, and close every connection."""
        await cancel_and_wait(self._watching)
        await self.pool.close()

    async def _watch(self) -> None:
        while True:
            self._wake.clear()
            try:
                trouble: UpstreamError | str | None = await self._probe()
            except UpstreamError as error:
                trouble = error
            if isinstance(trouble, HeadTimeout) and self.up and self.pool.exchanges:
                trouble = None  # busy: it answers others
            self._note(trouble)
            looked, self._looked = self._looked, asyncio.Event()
            looked.set()
            wait = self._tempo.interval if self.up else self.retry_at - time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    async def _probe(self) -> str | None:
        """Return what is the matter with it, if anything is. Raises UpstreamError.

        GET /v1/models (OpenAI reference, Models) proves the key, and /health tells of a
        llama-server that is still loading. A server need not have either: only 5xx, a key that
        is refused, a redirect, and 400 to both (what is asked of a port for TLS in plain text,
        say) mean that it is of no use.
        """
        listed = await self._ask("/v1/models")
        self.useless = listed.status == 401 or 300 <= listed.status < 400
        if listed.status == 401:
            return "it refuses the key" if self._authenticated else "it wants a key"
        if self.useless:
            return "it redirects to another url, which should stand in models.json"
        if listed.status >= 500:
            return f"it answered {listed.status} to GET /v1/models{quoted(listed)}"
        if listed.status == 200:
            self.contexts = await asyncio.to_thread(_contexts_in, listed.body)
        health = await self._ask("/health")
        if health.status >= 500:
            return f"it answered {health.status} to GET /health{quoted(health)}"
        self.useless = listed.status == health.status == 400
        if self.useless:
            return f"it answered 400 to GET /v1/models and to GET /health{quoted(health)}"
        return None

    async def _ask(self, path: str) -> Fetched:
        return await self.fetch(
            UpstreamRequest("GET", path), timeout=_HEALTH_TIMEOUT, max_body=_LONGEST_LIST
        )

    def _note(self, trouble: UpstreamError | str | None) -> None:
        before = self.up, self.error
        if trouble is None:
            self.up, self.error, self._failures = True, None, 0
        else:
            self.up = False
            self.error = trouble if isinstance(trouble, str) else _in_words(trouble)
            self.timed_out = isinstance(trouble, ConnectTimeout | HeadTimeout)
            wait = self._tempo.backoff_first * 2 ** min(self._failures, 30)
            self.retry_at = time.monotonic() + min(wait, self._tempo.backoff_cap)
            self._failures += 1
        if (self.up, self.error) != before:
            self._changed(self)


class _KeyGuard:
    """A sink in front of another that keeps a 401, and its body, from it."""

    __slots__ = ("_over", "_server", "_sink")

    def __init__(self, sink: ResponseSink, server: str) -> None:
        self._sink = sink
        self._server = server
        self._over = False

    def on_head(self, head: ResponseHead) -> None:
        if head.status == 401:
            self._over = True
            self._sink.on_error(KeyRefused(self._server))
        else:
            self._sink.on_head(head)

    def on_body(self, data: bytes) -> None:
        if not self._over:
            self._sink.on_body(data)

    def on_end(self) -> None:
        if not self._over:
            self._sink.on_end()

    def on_error(self, error: UpstreamError) -> None:
        if not self._over:
            self._sink.on_error(error)


def _contexts_in(answer: bytes) -> dict[str, int]:
    contexts: dict[str, int] = {}
    with contextlib.suppress(ValueError, LookupError, TypeError):
        for entry in orjson.loads(answer)["data"]:
            for key in _CONTEXT_SIZES:
                if isinstance(size := entry.get(key), int):
                    contexts.setdefault(str(entry["id"]), size)
    return contexts


def _in_words(error: GatewayError) -> str:
    """Return why a connection failed, without the address: such texts reach clients."""
    cause = error.__cause__
    match cause:
        case ssl.SSLCertVerificationError(verify_code=62 | 64):
            return "its certificate is for another name"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted: {cause.verify_message}"
        case ssl.SSLError():
            return f"TLS failed: {cause.reason or 'no reason given'}"
        case socket.gaierror():
            return "its name is not known"
        case ConnectionRefusedError():
            return "the connection is refused"
        case OSError(errno=int(number)):
            return os.strerror(number)
        case ConnectionError():
            return "the connection was closed at once"
        case OSError():
            return "no connection"
    if isinstance(error, ConnectTimeout | HeadTimeout):
        return f"it did not answer within {_HEALTH_TIMEOUT:g} s"
    return error.message
