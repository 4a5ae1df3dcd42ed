"""Streams of answers, read again: from the beginning, or behind the last event that was seen."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web
from multidict import CIMultiDict

from gateway.errors import BadRequest, Cancelled, GatewayError, NotFound
from gateway.http.request import Request
from gateway.http.response import Answer, StartedResponse
from gateway.pipeline.events import counted_stream, patience
from gateway.pipeline.reading import adapted
from gateway.pipeline.request_context import CONTEXT, RequestContext
from gateway.pipeline.route import Routes, Row
from gateway.proxy.headers import STREAM_HEADERS
from gateway.proxy.heartbeat import comment
from gateway.quantities import whole_number
from gateway.scope import Scope
from gateway.streams.kept import KeptStreams
from gateway.streams.kinds import EVENTS
from gateway.streams.recorded import STREAM_ID
from gateway.streams.recording import Reader, Recording

#: How many pieces are read before the others have their turn.
_AT_ONCE: Final = 512
_LAST_SEEN: Final = "Last-Event-ID"
_AFTER: Final = "after"


class StreamHandlers:
    """Lets clients read their streams again. ``kept`` is ``None`` where none are kept."""

    def __init__(self, kept: KeptStreams | None) -> None:
        self._kept = kept

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        yield Row("GET", "/v1/streams/{id}", self.read, Scope.CHAT, counts=False)
        yield Row("DELETE", "/v1/streams/{id}", self.end, Scope.CHAT, counts=False)

    async def read(self, request: web.Request) -> Answer:
        """GET /v1/streams/ID: the events of a stream that this key asked for, and those to come.

        ID is the ``X-Stream-Id`` of its answer. Events are counted from 1, and have their number as
        ``id``. With ``Last-Event-ID: N``, or ``?after=N``, those behind the event N. A stream of
        lines (Ollama's API) comes as lines, of which each counts as an event.
        """
        kept, recording = self._find(request)
        after = _last_seen(request)
        if recording.leave_client is not None:
            recording.leave_client()  # it has come back on another connection
        return await read_again(*adapted(request), kept, recording, after)

    async def end(self, request: web.Request) -> web.Response:
        """DELETE /v1/streams/ID: end the work on a stream, and forget it."""
        kept, recording = self._find(request)
        if recording.end_work is not None:
            recording.end_work(Cancelled("this stream was ended by its client"))
        kept.forget(recording)
        return web.Response(status=204)

    def _find(self, request: web.Request) -> tuple[KeptStreams, Recording]:
        id, kept = request.match_info["id"], self._kept
        if kept is None:
            raise NotFound("no streams are kept here (streams.keep)", code="stream_not_found")
        recording = kept.find(id, request[CONTEXT].principal.key_id)
        if recording is None:
            raise NotFound(
                f"this key has no stream {id[:100]!r}: streams can be read again for "
                f"{kept.keep:g} s after their end, for as long as there is memory for them",
                code="stream_not_found",
                param="id",
            )
        return kept, recording


async def read_again(
    request: Request,
    context: RequestContext,
    kept: KeptStreams,
    recording: Recording,
    after: int,
    *,
    at_once: bool = True,
) -> StartedResponse:
    """Answer ``request`` with the events of ``recording`` behind the event number ``after``, and
    those to come. ``at_once``: see :func:`counted_stream`.
    """
    reader = Reader(recording, after)
    with counted_stream(context, at_once=at_once):
        ending = context.services.standing.hold(context)
        kept.join(recording)
        try:
            return await _send(request, context, recording, reader)
        except asyncio.CancelledError as broke:
            if (error := ending.meaning(broke)) is None:
                raise
            raise error from None
        finally:
            kept.leave(recording)
            context.services.standing.done(ending)


def _last_seen(request: web.Request) -> int:
    """Return the number of the last event that the client has seen."""
    text = request.headers.get(_LAST_SEEN, request.query.get(_AFTER, "0"))
    number = whole_number(text.strip())
    if number is None:
        named = _LAST_SEEN if _LAST_SEEN in request.headers else _AFTER
        raise BadRequest(f"`{named}` must be the number of an event: 0, 1, 2, ...", param=named)
    return number


async def _send(
    request: Request, context: RequestContext, recording: Recording, reader: Reader
) -> StartedResponse:
    come = await _come_so_far(reader)
    if reader.number < reader.after:
        raise BadRequest(
            f"the client cannot have seen event {reader.after}: the stream has {reader.number}",
            param=_LAST_SEEN,
        )
    headers = CIMultiDict(
        (("Content-Type", recording.kind), *STREAM_HEADERS, (STREAM_ID, recording.id))
    )
    started = await request.start_response(200, headers, None)
    while come or not (reader.at_end and (recording.ended or recording.lost)):
        if come:
            started.write(come)
            await started.flow.drain()
        else:
            await _wait(patience(context), recording, started)
        come = await _come_so_far(reader)
    # As for the first reader: one that broke off never looks complete.
    if recording.finished and not recording.lost:
        await started.finish()
    elif recording.broken and not recording.lost:
        started.break_off(comment(b"broken off") if recording.kind == EVENTS else b"")
    else:
        started.break_off(recording.last_event(context.tell(_broken(recording))))
    return started


async def _come_so_far(reader: Reader) -> bytes:
    """Return what has come behind what was read."""
    come = reader.read(_AT_ONCE)
    while not reader.at_end:
        await asyncio.sleep(0)
        come += reader.read(_AT_ONCE)
    return come


async def _wait(seconds: float, recording: Recording, started: StartedResponse) -> None:
    """Wait until more has come, or it is time to send something anyway."""
    try:
        async with asyncio.timeout(seconds):
            await recording.news()
    except TimeoutError:
        if started.takes_more:
            started.write(comment(b"working") if recording.kind == EVENTS else b"\n")


def _broken(recording: Recording) -> GatewayError:
    if recording.lost:
        return NotFound("there is no memory to keep this stream", code="stream_not_found")
    return Cancelled(
        "the answer ends here: its client had gone, and nobody worked on it any longer"
    )
