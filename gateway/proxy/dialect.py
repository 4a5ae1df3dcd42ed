"""How each API says "error" and counts tokens: OpenAI's, its Responses, Anthropic's. Pure.

llama-server speaks both on different routes, but its errors have one shape of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import orjson

from gateway.errors import GatewayError
from gateway.proxy.failure import Failure
from gateway.proxy.sse import AnthropicTail, ResponsesTail, Tail

#: Anthropic API reference, "Errors".
_ANTHROPIC_TYPES: Mapping[int, str] = MappingProxyType(
    {
        400: "invalid_request_error",
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        503: "overloaded_error",
        504: "timeout_error",
    }
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """One API's way of saying what is no answer."""

    name: str
    #: The body of an error answer of llama-server as this API has it.
    error: Callable[[Failure], bytes]
    #: The body of an error of ours.
    body: Callable[[GatewayError], dict[str, Any]]
    #: The same as the last event of a stream that breaks.
    event: Callable[[GatewayError], bytes]
    #: What finds the usage in a stream.
    tail: Callable[[], Tail]


def anthropic_body(status: int, message: str) -> dict[str, Any]:
    """An error as Anthropic's API has it."""
    kind = _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


def _openai_event(error: GatewayError) -> bytes:
    return b"\n\ndata: %b\n\n" % orjson.dumps(error.body())


def _responses_event(error: GatewayError) -> bytes:
    """OpenAI reference, Responses, "Streaming events": ``error``.

    The fields stand in the event, as the reference has them, and in an ``error`` of its own, as
    OpenAI sends them and as its clients look for: with it they raise, without it they pass the
    event on as one of many.
    """
    said = error.body()["error"]
    fields = {"code": said["code"], "message": said["message"], "param": said["param"]}
    return b"\n\nevent: error\ndata: %b\n\n" % orjson.dumps(
        {"type": "error", **fields, "error": said}
    )


def _anthropic_error(failure: Failure) -> bytes:
    return orjson.dumps(anthropic_body(failure.status, failure.message))


def _anthropic_of(error: GatewayError) -> dict[str, Any]:
    return anthropic_body(error.status, error.public)


def _anthropic_event(error: GatewayError) -> bytes:
    return b"\n\nevent: error\ndata: %b\n\n" % orjson.dumps(_anthropic_of(error))


OPENAI = Dialect("openai", Failure.in_openai_shape, GatewayError.body, _openai_event, Tail)
RESPONSES = Dialect(
    "responses", Failure.in_openai_shape, GatewayError.body, _responses_event, ResponsesTail
)
ANTHROPIC = Dialect("anthropic", _anthropic_error, _anthropic_of, _anthropic_event, AnthropicTail)
