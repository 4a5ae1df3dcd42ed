"""The exceptions for every failure that a client can see.

Each carries the HTTP status and the OpenAI error object it leaves as:
``{"error": {"message", "type", "code", "param"}}`` (OpenAI API reference, "Error codes").
This module imports nothing of ours, so that every layer can raise from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self


class GatewayError(Exception):
    """A failure with a status and a message that a person can act on.

    ``message`` is all of it, for the log and for administrators. What only they may see (paths of
    this machine, lines of a llama-server's log) is given as ``detail``, in sentences that follow
    the message; :attr:`public` is the message without it, and what :meth:`body` says. Whoever
    answers a request passes on what :meth:`told` makes of an error.

    ``headers`` go out with the answer (``Retry-After``, ``WWW-Authenticate``). ``retryable``
    says whether the same request may succeed if it is simply sent again; where it may not,
    the answer carries ``x-should-retry: false``, which the OpenAI clients obey, so that a
    model that cannot load is not loaded three times for one question.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "api_error"
    default_code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = True
    #: The default of ``Retry-After``, in seconds.
    retry_after: ClassVar[str | None] = None
    #: Whether it ended an answer under way with which nothing was wrong.
    cuts: bool = False

    def __init__(
        self,
        message: str,
        *,
        detail: str | None = None,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.public = message
        self.detail = detail
        self.message = f"{message} {detail}" if detail else message
        super().__init__(self.message)
        self.code = code or self.default_code
        self.param = param
        self.headers = dict(headers or {})
        if self.retry_after is not None:
            self.headers.setdefault("Retry-After", self.retry_after)
        if not self.retryable:
            self.headers.setdefault("x-should-retry", "false")

    def told(self, *, in_full: bool, request_id: str) -> Self:
        """Return the same for one reader: with its detail, or with where that is to be found."""
        if not self.detail:
            return self
        # Not by its own __init__, which takes other arguments in some subclasses.
        shown = type(self).__new__(type(self), *self.args)
        shown.__dict__.update(self.__dict__)
        shown.public = (
            self.message
            if in_full
            else f"{self.public} (Request {request_id}: an administrator finds more about it in "
            "/chat/errors.)"
        )
        return shown

    def body(self) -> dict[str, Any]:
        """Return the OpenAI error object, with the :attr:`public` part of the message."""
        return error_body(self.public, type_=self.type, code=self.code, param=self.param)


def error_body(
    message: str, *, type_: str, code: str | None, param: str | None = None
) -> dict[str, Any]:
    """Return an OpenAI error object, for failures that are no :class:`GatewayError`."""
    return {"error": {"message": message, "type": type_, "code": code, "param": param}}


# --- when nobody waits any more ------------------------------------------------------------

#: The status of a request whose client left before the answer was complete, as in nginx.
CLIENT_GONE = 499


def client_has_gone(error: BaseException | None) -> bool:
    """Return whether ``error``, which ended a request, means that its client left.

    Then the task that serves the request is cancelled, or writing to the client fails.
    """
    from asyncio import CancelledError  # every command raises errors, and few have a loop

    return isinstance(error, CancelledError | ConnectionError)


def status_of(error: BaseException) -> int:
    """Return the status of a request that ended with ``error``."""
    if isinstance(error, GatewayError):
        return error.status
    return CLIENT_GONE if client_has_gone(error) else 500


# --- what the client got wrong -------------------------------------------------------------


class BadRequest(GatewayError):
    """400: the request cannot be understood or is not allowed as it stands."""

    status = 400
    type = "invalid_request_error"
    default_code = "invalid_request"
    retryable = False


class Unable(BadRequest):
    """400: the model cannot do this, however often it is asked; the message says which one can."""

    default_code = "unsupported_by_model"


class Unauthorized(GatewayError):
    """401: no key, or one that is unknown, expired or revoked (RFC 9110, 15.5.2)."""

    status = 401
    type = "invalid_request_error"
    default_code = "invalid_api_key"

    def __init__(self, message: str, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.headers.setdefault("WWW-Authenticate", "Bearer")


class Forbidden(GatewayError):
    """403: a valid key without the right to do this."""

    status = 403
    type = "permission_error"
    default_code = "permission_denied"


class NotFound(GatewayError):
    """404: no such route, model or personality."""

    status = 404
    type = "invalid_request_error"
    default_code = "not_found"


class ModelNotFound(NotFound):
    """404: the model, alias or personality named is not in models.json."""

    default_code = "model_not_found"


class MethodNotAllowed(BadRequest):
    """405: there is such a route, but not for this method (``Allow`` says for which)."""

    status = 405
    default_code = "method_not_allowed"


class Cancelled(GatewayError):
    """409: an administrator has cancelled the request."""

    status = 409
    type = "invalid_request_error"
    default_code = "cancelled"
    retryable = False


class Conflict(GatewayError):
    """409: what the client names as new is there already."""

    status = 409
    type = "invalid_request_error"
    default_code = "conflict"
    retryable = False


class RequestTimeout(BadRequest):
    """408: the rest of the request did not come in time."""

    status = 408
    retryable = True
    default_code = "request_timeout"


class UrlTooLong(BadRequest):
    """414: the address, query included, is over ``limits.max_url``."""

    status = 414
    default_code = "url_too_long"


class ExpectationFailed(BadRequest):
    """417: ``Expect`` asks for something other than ``100-continue`` (RFC 9110, 10.1.1)."""

    status = 417
    default_code = "expectation_failed"


class Unprocessable(BadRequest):
    """422: understood, and yet no llama-server can answer it (RFC 9110, 15.5.21)."""

    status = 422
    default_code = "unprocessable_request"


class HeadersTooLarge(BadRequest):
    """431: a header, or all of them, are over a limit (RFC 6585, 5)."""

    status = 431
    default_code = "headers_too_large"


class PayloadTooLarge(GatewayError):
    """413: the body is over ``limits.max_body``."""

    status = 413
    type = "invalid_request_error"
    default_code = "request_too_large"


class UnsupportedMediaType(BadRequest):
    """415: a body in a form, or with a coding, that this route doesn't take."""

    status = 415
    default_code = "unsupported_media_type"


class RateLimited(GatewayError):
    """429: over a limit of this key or address; ``Retry-After`` says when to come back."""

    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"
    retry_after = "5"


# --- what went wrong on our side -----------------------------------------------------------


class CatalogBroken(GatewayError):
    """500: models.json is broken, and there was no good one that could go on serving."""

    default_code = "models_file_broken"
    retryable = False


class LoadFailed(GatewayError):
    """500: the model's llama-server did not come up; the message ends with its last lines."""

    default_code = "model_load_failed"
    retryable = False


class BackendError(GatewayError):
    """502: the backend died, or answered something that is not HTTP."""

    status = 502
    default_code = "backend_error"


class Unavailable(GatewayError):
    """503: not now; ``Retry-After`` says when. The queue is full, the wait too long, or the gateway
    ends.
    """

    status = 503
    type = "overloaded_error"
    default_code = "unavailable"
    retry_after = "5"


class ShuttingDown(Unavailable):
    """503: the gateway ends; another one may be there soon."""

    default_code = "shutting_down"
    retry_after = "10"

    def __init__(self, message: str = "the gateway is shutting down", **kwargs: Any) -> None:
        super().__init__(message, **kwargs)


class TimeIsUp(GatewayError):
    """504: the answer took longer than a request may (``limits.request.time``, or its key's)."""

    status = 504
    type = "timeout_error"
    default_code = "request_time"
    retryable = False


class BackendTimeout(GatewayError):
    """504: the backend accepted the request and then said nothing for too long."""

    status = 504
    default_code = "backend_timeout"
