"""The dialects: how each API (OpenAI's, its Responses, Anthropic's, Ollama's) reports errors and
tokens.
Pure.

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
from gateway.proxy.heartbeat import Pulse, comment
from gateway.proxy.last_event import last_event
from gateway.proxy.sse import AnthropicTail, ResponsesTail, Tail
from gateway.streams.kinds import EVENTS, LINES

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
    """The dialect of one API: how it reports errors and usage."""

    name: str
    #: Makes the body for an error answer of llama-server.
    error: Callable[[Failure], bytes]
    #: Makes the body for an error of the gateway.
    body: Callable[[GatewayError], dict[str, Any]]
    #: Makes the data of the event that ends a broken stream; and the event's name.
    said: Callable[[GatewayError], dict[str, Any]]
    event_name: str
    #: Makes the reader that finds the usage in a stream.
    tail: Callable[[], Tail]
    #: Makes what is sent in a stream to keep it alive.
    pulse: Pulse = comment
    #: The media type of a stream.
    stream: str = EVENTS

    def ending(self, error: GatewayError) -> bytes:
        """Return ``error`` as the end of a stream of its media type."""
        if self.stream == EVENTS:
            return self.last_event(error)
        return orjson.dumps(self.said(error)) + b"\n"

    def last_event(self, error: GatewayError, half: bytes | None = b"") -> bytes:
        """Return ``error`` as the end of a stream: see
        :func:`gateway.proxy.last_event.last_event`.
        """
        return last_event(half, self.event_name, self.said(error), error.public)


def anthropic_body(status: int, message: str) -> dict[str, Any]:
    """Return an error as Anthropic's API has it."""
    kind = _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


def _responses_said(error: GatewayError) -> dict[str, Any]:
    """Return the event ``error`` (OpenAI reference, Responses, "Streaming events").

    The fields stand in the event, as the reference has them, and in an ``error`` of its own, as
    OpenAI sends them and as its clients look for: with it they raise, without it they pass the
    event on as one of many.
    """
    said = error.body()["error"]
    fields = {"code": said["code"], "message": said["message"], "param": said["param"]}
    return {"type": "error", **fields, "error": said}


def _anthropic_error(failure: Failure) -> bytes:
    return orjson.dumps(anthropic_body(failure.status, failure.message))


def _anthropic_of(error: GatewayError) -> dict[str, Any]:
    return anthropic_body(error.status, error.public)


def _ollama_error(failure: Failure) -> bytes:
    return orjson.dumps({"error": failure.message})


def _ollama_of(error: GatewayError) -> dict[str, Any]:
    return {"error": error.public}


def _ping(words: bytes, waiting: bool) -> bytes:
    """Return the event ``ping``, on which clients count (Anthropic API reference, "Streaming
    messages").

    The words are a comment within the event.
    """
    return b'%bevent: ping\ndata: {"type": "ping"}\n\n' % comment(words)


def _own(error: GatewayError) -> dict[str, Any]:
    return error.body()  # of its class, which may have more to say


OPENAI = Dialect("openai", Failure.in_openai_shape, _own, _own, "", Tail)
RESPONSES = Dialect(
    "responses",
    Failure.in_openai_shape,
    _own,
    _responses_said,
    "error",
    ResponsesTail,
)
ANTHROPIC = Dialect(
    "anthropic", _anthropic_error, _anthropic_of, _anthropic_of, "error", AnthropicTail, _ping
)
#: Its lines are made by :class:`gateway.ollama.answers.Lines`, of OpenAI's events.
OLLAMA = Dialect("ollama", _ollama_error, _ollama_of, _ollama_of, "", Tail, stream=LINES)
