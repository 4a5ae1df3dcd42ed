"""The head of a streamed answer, made from the backend's head, or before that has come."""

from __future__ import annotations

from multidict import CIMultiDict

from gateway.http.response import StartedResponse, StartResponse
from gateway.proxy import headers
from gateway.upstream import ResponseHead

EVENTS = "text/event-stream"


async def open_stream(start_response: StartResponse, head: ResponseHead) -> StartedResponse:
    """Send the head of a backend's streamed answer."""
    passed = CIMultiDict(headers.to_client(head.headers))
    if (when := headers.retry_after(head.status, head.headers)) is not None:
        passed["Retry-After"] = when
    if passed.get("Content-Type", "").startswith(EVENTS):
        passed.extend(headers.STREAM_HEADERS)
    return await start_response(head.status, passed, head.length)


async def open_events(start_response: StartResponse) -> StartedResponse:
    """Begin a stream of events before there is a backend to fill it."""
    return await start_response(
        200, CIMultiDict((("Content-Type", EVENTS), *headers.STREAM_HEADERS)), None
    )
