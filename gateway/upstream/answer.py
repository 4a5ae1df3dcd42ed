"""What an exchange with a backend brings: a head, pieces of body, and an end or an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.errors import BackendError, BackendTimeout, BadRequest, GatewayError

# --- what can go wrong ---------------------------------------------------------------------


class UpstreamError(GatewayError):
    """Anything that ends an exchange with a backend too early; the subclass has the status."""

    #: Whether the request had gone out before, on a connection that broke.
    sent = False


class ConnectFailed(UpstreamError, BackendError):
    """502: no connection to the backend: it isn't listening, or the pool is closed."""


class ConnectTimeout(UpstreamError, BackendTimeout):
    """504: the backend did not accept a connection in time."""


class ConnectionLost(UpstreamError, BackendError):
    """502: the connection ended before the answer did.

    ``before_head`` tells whether the sink has been given a head: after that only the client's
    stream can be aborted, before it another answer is possible.
    """

    def __init__(self, message: str, *, before_head: bool) -> None:
        super().__init__(message)
        self.before_head = before_head


class ProtocolError(UpstreamError, BackendError):
    """502: what the backend sent is not an HTTP/1.1 answer."""


class EventTooLong(UpstreamError, BackendError):
    """502: an event of a stream has no end, or one that nobody waits for."""


class HeadTimeout(UpstreamError, BackendTimeout):
    """504: the backend has the request and sends no head of an answer."""


class UploadFailed(UpstreamError, BadRequest):
    """400: the body that was to be streamed up failed; ``__cause__`` says how."""


class SinkFailed(UpstreamError):
    """500: a callback of the sink raised: a bug of ours, reported to the loop's handler."""


# --- who is told ---------------------------------------------------------------------------


@dataclass(slots=True)
class ResponseHead:
    """The final (non-1xx) head of an answer; names and values as the backend sent them.

    ``length``: bytes of body that will come, None where the answer doesn't say (chunked, or
    until the connection closes). Content-Length itself is not among the ``headers``, which may be
    shared with other answers.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    length: int | None


class ResponseSink(Protocol):
    """Callbacks from the event loop, never awaited, in the order head, body*, end or error.

    Exactly one of ``on_end`` and ``on_error`` comes, unless the exchange is aborted: then
    nothing comes any more.
    """

    def on_head(self, head: ResponseHead) -> None:
        """The answer has begun."""

    def on_body(self, data: bytes) -> None:
        """A piece of the body, freed of chunk framing, as soon as it arrived."""

    def on_end(self) -> None:
        """The answer is complete and was correctly framed."""

    def on_error(self, error: UpstreamError) -> None:
        """The answer, or what was to become one, is lost."""


class ChunkForwarder:
    """Where whole chunks of an answer go as they came: into a client's transport.

    ``write`` is the transport's. ``keep`` gets the last two chunks before anything else comes, or
    with :meth:`flush`: a stream tells its usage at the end, or in the event before that.
    """

    __slots__ = ("before", "chunks", "keep", "last", "write")

    def __init__(self, write: Callable[[bytes], None], keep: Callable[[bytes], None]) -> None:
        self.write = write
        self.keep = keep
        self.chunks = 0  # that went through here
        self.before = self.last = b""

    def flush(self) -> None:
        """Hand the last chunks over to ``keep``."""
        if self.before:
            self.keep(self.before)
        if self.last:
            self.keep(self.last)
        self.before = self.last = b""
