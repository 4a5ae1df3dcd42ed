"""The head of a streamed answer, made from the backend's head, or before that has come."""

from __future__ import annotations

from multidict import CIMultiDict

from gateway.http.response import StartedResponse, StartResponse
from gateway.proxy import headers
from gateway.streams.kinds import EVENTS
from gateway.upstream import ResponseHead


async def open_stream(
    start_response: StartResponse, head: ResponseHead, kind: str = EVENTS
) -> StartedResponse:
    """Send the head of a backend's streamed answer; ``kind``: what becomes of a stream of
    events.
    """
    passed = CIMultiDict(headers.to_client(head.headers))
    if (when := headers.retry_after(head.status, head.headers)) is not None:
        passed["Retry-After"] = when
    if passed.get("Content-Type", "").startswith(EVENTS):
        if kind != EVENTS:
            passed["Content-Type"] = kind
        passed.extend(headers.STREAM_HEADERS)
    return await start_response(head.status, passed, head.length)


async def open_events(start_response: StartResponse, kind: str = EVENTS) -> StartedResponse:
    """Begin a stream of events, or what becomes of it, before there is a backend to fill it."""
    return await start_response(
        200, CIMultiDict((("Content-Type", kind), *headers.STREAM_HEADERS)), None
    )
