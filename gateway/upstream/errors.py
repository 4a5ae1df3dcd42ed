"""The errors that end an exchange with a backend too early."""

from __future__ import annotations

from gateway.errors import BackendError, BackendTimeout, BadRequest, GatewayError


class UpstreamError(GatewayError):
    """The base of the errors that end an exchange with a backend too early; subclasses have the
    status.

    What it says of the request is for :func:`gateway.upstream.retry.may_retry`.
    """

    #: Whether no server has begun to work on the request: none got it, or the one that did was
    #: about to close the connection.
    unprocessed = False
    #: Whether the request had already been sent, on a connection that broke.
    sent = False
    #: Whether every server was tried, so that trying them again is pointless.
    exhausted = False


class ConnectFailed(UpstreamError, BackendError):
    """502: there is no connection to the backend: it isn't listening, or the pool is closed."""

    unprocessed = True


class ConnectTimeout(UpstreamError, BackendTimeout):
    """504: the backend did not accept a connection in time."""

    unprocessed = True


class ConnectionLost(UpstreamError, BackendError):
    """502: the connection ended before the answer did.

    ``before_head`` tells whether the sink has been given a head: after that only the client's
    stream can be aborted, before it another answer is possible.
    """

    def __init__(self, message: str, *, before_head: bool, unprocessed: bool = False) -> None:
        super().__init__(message)
        self.before_head = before_head
        self.unprocessed = unprocessed


class ProtocolError(UpstreamError, BackendError):
    """502: what the backend sent is not an HTTP/1.1 answer."""


class EventTooLong(UpstreamError, BackendError):
    """502: an event of a stream has no end, or one that nobody waits for."""


class HeadTimeout(UpstreamError, BackendTimeout):
    """504: the backend has the request, but sends no head of an answer."""


class UploadFailed(UpstreamError, BadRequest):
    """400: the body that was to be streamed up failed; ``__cause__`` says how."""


class SinkFailed(UpstreamError):
    """500: a callback of the sink raised: a bug of ours, reported to the loop's handler."""
