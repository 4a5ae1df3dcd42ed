"""Answers that are recorded on their way to the client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from multidict import CIMultiDict, istr

from gateway.errors import Cancelled, GatewayError
from gateway.http.flow_control import Flow
from gateway.http.response import Outlet, StartedResponse, StartResponse
from gateway.streams.kept import KeptStreams
from gateway.streams.kinds import EVENTS
from gateway.streams.nobody import to_nobody
from gateway.streams.recording import EndWork, LastEvent, Recording

#: The header of an answer that says by which name it can be read again.
STREAM_ID: Final = istr("X-Stream-Id")


class _Tee:
    """A client's transport, with a recording of what is written to it."""

    __slots__ = (
        "_add",
        "_outlet",
        "_recording",
        "_write",
        "get_write_buffer_size",
        "is_closing",
    )

    def __init__(self, outlet: Outlet, recording: Recording) -> None:
        self._recording = recording
        self._outlet = outlet
        self._add = recording.add  # what each chunk needs is looked up once
        self._write = outlet.write
        self.get_write_buffer_size: Callable[[], int] = outlet.get_write_buffer_size
        self.is_closing: Callable[[], bool] = outlet.is_closing

    def write(self, data: bytes, /) -> None:
        self._write(data)
        self._add(data)

    def abort(self) -> None:
        self._outlet.abort()

    def close(self) -> None:
        self._recording.broken = True  # the last event says why
        self._outlet.close()


class _LastingTee:
    """The same, where the recording goes on when the client has gone."""

    __slots__ = ("_outlet", "_recording")

    def __init__(self, outlet: Outlet, recording: Recording) -> None:
        self._outlet = outlet
        self._recording = recording

    def write(self, data: bytes, /) -> None:
        if not self._outlet.is_closing():
            self._outlet.write(data)
        self._recording.add(data)

    def is_closing(self) -> bool:
        return self._recording.lost and self._outlet.is_closing()

    def get_write_buffer_size(self) -> int:
        return 0 if self._outlet.is_closing() else self._outlet.get_write_buffer_size()

    def abort(self) -> None:
        self._outlet.abort()

    def close(self) -> None:
        self._recording.broken = True
        self._outlet.close()


class _LastingFlow:
    """The back-pressure of a client, and none once that has gone."""

    __slots__ = ("_flow", "_gone")

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._gone = False

    @property
    def full(self) -> bool:
        return self._flow.full and not self._gone

    @property
    def when_full(self) -> Callable[[], None] | None:
        return self._flow.when_full

    @when_full.setter
    def when_full(self, value: Callable[[], None] | None) -> None:
        self._flow.when_full = value

    async def drain(self) -> None:
        try:
            await self._flow.drain()
        except ConnectionError:
            self._gone = True


class RecordedStart:
    """A :data:`gateway.http.response.StartResponse` that records an answer of the key ``key_id``,
    if that is a stream of the media type ``kind``.

    ``lasts``: whether the answer goes on when its client's connection is lost. ``last_event``
    makes the event that ends one which goes on no longer. ``id``: the name that the client has
    chosen; such an answer can be read by others, and lasts, before it begins.
    """

    __slots__ = (
        "_kept",
        "_key_id",
        "_kind",
        "_last_event",
        "_start_response",
        "end_work",
        "lasts",
        "recording",
        "started_response",
    )

    def __init__(
        self,
        kept: KeptStreams,
        key_id: str,
        start_response: StartResponse,
        last_event: LastEvent,
        *,
        id: str | None = None,
        lasts: bool,
        kind: str = EVENTS,
    ) -> None:
        self._kept = kept
        self._key_id = key_id
        self._start_response = start_response
        self._last_event = last_event
        self._kind = kind
        self.lasts = lasts
        #: Ends the work on the answer with an error.
        self.end_work: EndWork | None = None
        self.recording: Recording | None = None
        if id is not None:
            self.recording = kept.begin(key_id, last_event, id)
            self.recording.kind = kind
        self.started_response: StartedResponse | None = None

    async def __call__(
        self, status: int, headers: CIMultiDict[str], length: int | None
    ) -> StartedResponse:
        """Send the head of a streamed answer."""
        if status != 200 or not headers.get("Content-Type", "").startswith(self._kind):
            return await self._begin(status, headers, length)
        recording = self.recording or self._kept.begin(self._key_id, self._last_event)
        recording.kind = self._kind
        headers[STREAM_ID] = recording.id
        try:
            started = await self._begin(status, headers, length)
        except BaseException:
            if recording is not self.recording:
                self._kept.forget(recording)
            raise
        recording.began, recording.chunked = True, started.chunked
        recording.end_work = self.end_work
        outlet = started.transport
        if self.lasts:
            recording.leave_client = outlet.abort
            started.transport = _LastingTee(outlet, recording)
            started.flow = _LastingFlow(started.flow)
        else:
            started.transport = _Tee(outlet, recording)
        self.recording, self.started_response = recording, started
        return started

    async def _begin(
        self, status: int, headers: CIMultiDict[str], length: int | None
    ) -> StartedResponse:
        try:
            return await self._start_response(status, headers, length)
        except ConnectionError:
            if not self.goes_on:
                raise
            self.client_left()
            return await self._start_response(status, headers, length)

    @property
    def goes_on(self) -> bool:
        """Whether the answer goes on without its client, which can come back to it."""
        return self.lasts and self.recording is not None and not self.recording.lost

    def client_left(self) -> None:
        """Begin the answer, if it has not begun, for nobody but those who come back to it."""
        self._start_response = to_nobody

    def work_begins(self, end_work: EndWork) -> None:
        """Note that the work on the answer begins, and what ends it with an error."""
        self.end_work = end_work
        if self.recording is not None:
            self.recording.end_work = end_work

    def refuse(self, error: GatewayError) -> None:
        """Note why there is no stream, for who comes back to it; harmless if there is one."""
        recording = self.recording
        if recording is not None and not recording.began:
            recording.add(self._last_event(error))
            recording.broken = True

    def end(self) -> None:
        """Note that nothing more is written."""
        if (recording := self.recording) is not None:
            if not recording.pieces:
                self.refuse(Cancelled("its client had left before it began"))
            started = self.started_response
            recording.finished = started is not None and started.finished
            self._kept.end(recording)
