"""The fast JSON protocol, which every connection meets first, and which serves the chats.

A chat is a POST with a small JSON body that comes in one piece. Such a request is parsed here by
llhttp (through httptools), answered in the one task of its connection, and its answer is written
straight to the socket: at less than half of what aiohttp's server costs. Everything else -
another method or path, a query, a body that is long, chunked or compressed, ``Expect``, a name
that isn't ours, anything odd at all - is not looked at here: the connection, with every byte that
came, is handed over to aiohttp, which serves it to its end. So there is one parser for what is
strange, and it is aiohttp's.
"""

from __future__ import annotations

import asyncio
import logging

from multidict import CIMultiDict

from gateway.errors import GatewayError
from gateway.http.client_connection import ClientConnection
from gateway.http.fast_listener import FastListener
from gateway.http.flow_control import FlowControl
from gateway.http.half_closed import CONTINUE, ZERO, HalfClosed, look_after
from gateway.http.heads import POST, Head
from gateway.http.request import FastRequest
from gateway.http.response import (
    CLOSE,
    BufferedResponse,
    StartedResponse,
    as_bytes,
    head_of,
    length_line,
    lines_of,
)

#: Bytes. A longer head goes to aiohttp. ``limits.max_head`` is never lower.
MAX_HEAD = 8000
#: Bytes of answers that may wait for a client before its connection counts as full (asyncio and
#: uvloop have the same limit, but eight times as much with TLS), and of requests behind the first.
_MAX_UNSENT, _MAX_BEHIND = 64 * 1024, 64 * 1024
_END = b"\r\n\r\n"
_log = logging.getLogger(__name__)


class FastConnection(asyncio.Protocol):
    """A connection that the fast JSON protocol serves, until aiohttp gets it or it ends."""

    __slots__ = (
        "_answered",
        "_buffer",
        "_client",
        "_closed",
        "_expected",
        "_half_closed",
        "_head",
        "_held",
        "_listener",
        "_remote",
        "_request",
        "_secure",
        "_started_response",
        "_task",
        "_timed",
        "_transport",
        "_wanted",
        "flow",
    )

    _transport: asyncio.Transport

    def __init__(self, listener: FastListener) -> None:
        self._listener = listener
        self._client = ClientConnection(listener.connections)
        self._buffer = b""  # incomplete, or behind a request that is answered
        #: The head of a request whose body arrives, and where in the buffer that begins and ends.
        self._expected: tuple[Head, int, int] | None = None
        self._head: Head | None = None  # of the last request
        self._request: FastRequest | None = None  # the one that is answered
        self._started_response: StartedResponse | None = None  # its answer, if that is a stream
        self._answered = False  # it is written
        #: Set when the client has closed its side, but still waits for its answers.
        self._half_closed: HalfClosed | None = None
        #: The task that answers one request after the other. It starts with the first one.
        self._task: asyncio.Task[None] | None = None
        self._wanted: asyncio.Future[None] | None = None
        self._timed = False  # a clock runs for an incomplete request
        self._closed = False
        self._held = False  # nothing is read for now: there is enough behind
        self.flow = FlowControl()

    @property
    def transport(self) -> asyncio.Transport:
        """The transport that answers are written to."""
        return self._transport

    # --- transport events ------------------------------------------------------------------

    def counted(self, network: bytes | None, refusal: bytes | None) -> None:
        """What ``Connections.count_or_refuse`` said, before there was TLS to talk through."""
        self._client.counted(network, refusal)

    def handshake_ended(self) -> None:
        """If it came to nothing, this is the end of the connection."""
        self._client.handshake_ended()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a Protocol gets a Transport
        if not self._client.made(self._transport):
            self._closed = True
            return
        peer = transport.get_extra_info("peername")
        self._remote = str(peer[0]) if isinstance(peer, tuple) else None
        self._secure = transport.get_extra_info("sslcontext") is not None
        if self._secure:
            self._transport.set_write_buffer_limits(_MAX_UNSENT)
        if self._remote is not None:
            self._client.watch()
        if self._listener.emptied is not None:  # accepted in the last moment
            self._closed = True
            transport.abort()  # type: ignore[attr-defined]
            return
        self._listener.open.add(self)
        self._start_clock()

    @property
    def holds_request(self) -> bool:
        """Whether any part of a request is buffered."""
        return (self._request or self._expected or self._started_response) is not None

    def data_received(self, data: bytes) -> None:
        if self._closed:
            return
        if self._request is None:
            self._begin_request(self._buffer + data if self._buffer else data)
            return
        self._buffer += data
        if len(self._buffer) > _MAX_BEHIND and not self._held:
            self._held = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The client sends no more, and may be gone; return ``False`` where the connection ends."""
        if self._closed or self._request is None or self._secure:
            return False
        if self._half_closed is None:
            self._half_closed = look_after(self._transport, self._probe)
        return self._half_closed is not None

    def _probe(self) -> bytes:
        """Return what can be written now that is no part of an answer."""
        started = self._started_response
        if self._request is None or self._answered or (started is not None and started.finished):
            return b""
        if started is None:
            return CONTINUE
        return ZERO if started.chunked else b""

    def connection_lost(self, exc: Exception | None) -> None:
        if self._half_closed is not None:
            self._half_closed.end()
        self._leave()
        self._client.left(exc)
        if self._request is not None and self._task is not None:
            self._task.cancel()
        self.flow.end()

    def pause_writing(self) -> None:
        self.flow.pause()
        self._listener.connections.await_reader(self._client)

    def resume_writing(self) -> None:
        self.flow.resume()
        self._listener.connections.has_read(self._client)

    # --- from bytes to a request -----------------------------------------------------------

    def _begin_request(self, data: bytes) -> None:
        """Answer the request that ``data`` begins with, if it is whole and ours."""
        expected = self._expected
        if expected is None:
            last = self._head
            expected = last.again(data) if last is not None else None
            if expected is None and (expected := self._read_head(data)) is None:
                return
        head, start, end = expected
        if len(data) < end:
            if self._expected is None:
                self._expected = expected
                self._timed = True
                self._listener.connections.works(self)
                self._listener.connections.await_the_rest(self)
            self._buffer = data
            return
        self._head = head
        self._expected = None
        self._buffer = data[end:]
        connections = self._listener.connections
        if self._timed:
            self._timed = False
            connections.stop_waiting(self)
        else:
            connections.works(self)
        self._answered = False
        self._request = FastRequest(head, data[start:end], self, self._remote, self._secure)
        if self._task is None:
            # Not through tasks.spawn(): it is referenced here, and logs its own crash.
            self._task = self._listener.loop.create_task(self._serve())
        else:
            self._wake()

    def _wake(self) -> None:
        """Wake up the task that waits for a request: there is one, or there will be none."""
        wanted, self._wanted = self._wanted, None
        if wanted is not None and not wanted.done():
            wanted.set_result(None)

    def _read_head(self, data: bytes) -> tuple[Head, int, int] | None:
        """Return the head that ``data`` begins with, and where its body begins and ends.

        None: it is not whole, or not for here, and all that is to be done has been done.
        """
        end = data.find(_END, 0, MAX_HEAD)
        if end < 0 and len(data) < MAX_HEAD and _may_become_one(data):
            self._buffer = data
            self._start_clock()
            return None
        start = end + len(_END)
        found = self._listener.heads.read(data[:start]) if end >= 0 else None
        if found is None:
            self._hand_over(data)
            return None
        head, length = found
        return head, start, start + length

    def _start_clock(self) -> None:
        if not self._timed:
            self._timed = True
            self._listener.connections.works(self)
            self._listener.connections.await_head(self)

    def _leave(self) -> None:
        """The connection is not served here any more."""
        self._closed = True
        self._wake()
        listener = self._listener
        listener.left(self)
        listener.connections.stop_waiting(self)
        listener.connections.works(self)

    @property
    def received(self) -> int:
        """The bytes of a request that is still incomplete."""
        return len(self._buffer)

    def give_up(self, error: GatewayError | None) -> None:
        """The rest did not come in time, or nothing for very long."""
        self._timed = False
        if self._expected is not None:
            self._hand_over(self._buffer)  # which has another clock for bodies
            return
        if error is not None:
            connections = self._listener.connections
            self._transport.write(connections.refuse(self._buffer, error, self._remote))
        self.close()

    def _hand_over(self, data: bytes) -> None:
        """From here on the connection is aiohttp's; ``data`` is what came and wasn't answered."""
        self._leave()
        self._buffer = b""
        transport = self._transport
        if self._held:
            transport.resume_reading()
        half_closed = self._half_closed
        if half_closed is not None:
            half_closed.end()
        connection = self._listener.make(self._client)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        connection.data_received(data)
        if half_closed is not None and not connection.eof_received():
            transport.close()

    # --- from a request to its answer ------------------------------------------------------

    async def _serve(self) -> None:
        """Answer one request, and go on to the next, as long as the connection is here."""
        transport = self._transport
        try:
            while not self._closed:
                request = self._request
                if request is None:
                    self._wanted = self._listener.loop.create_future()
                    await self._wanted
                    continue
                head = self._head
                assert head is not None
                answered = await head.endpoint(request)
                keep_alive = head.keep_alive and not self._listener.lifecycle.finishes
                started = self._started_response
                if started is not None:
                    if started is not answered:
                        transport.abort()  # its stream failed, and must not look complete
                    self._started_response = self.flow.when_full = started = None
                elif isinstance(answered, BufferedResponse):
                    keep_alive = keep_alive and not answered.closes
                    fixed = head.answer_lines(request)
                    transport.write(
                        as_bytes(answered, fixed, request.context, keep_alive=keep_alive)
                    )
                self._answered = True
                if self.flow.full and not self._closed:
                    await self._gone_out()
                self._request = None
                del request, answered  # not kept until the next one
                if self._closed:
                    return
                if not keep_alive or transport.is_closing():
                    self.close()
                elif self._buffer:
                    self._begin_request(self._buffer)
                    self._read_on()
                    if self._half_closed is not None and not (self._closed or self._request):
                        self.close()  # the rest of what is in the buffer never comes
                    await asyncio.sleep(0)  # the others' turn: an answer may take no wait at all
                elif self._half_closed is not None:
                    self.close()
                else:
                    self._listener.connections.rests(self)
        except asyncio.CancelledError:
            transport.abort()
            raise
        except Exception:
            _log.exception("an answer could not be written")
            transport.abort()
        finally:
            self._request = self._task = None  # which point back here

    async def _gone_out(self) -> None:
        """Wait for the client to read: one who doesn't gets no further answer.

        Until then the request isn't through: a gateway that ends waits for it.
        """
        lifecycle = self._listener.lifecycle
        lifecycle.enter()
        try:
            await self.flow.drain()
        finally:
            lifecycle.leave()

    def _read_on(self) -> None:
        """Read again, if that was held, and there is room, or more is needed."""
        if self._held and not self._closed:
            if self._request is not None and len(self._buffer) > _MAX_BEHIND:
                return
            self._held = False
            self._transport.resume_reading()

    async def start_response(
        self, request: FastRequest, status: int, headers: CIMultiDict[str], length: int | None
    ) -> StartedResponse:
        if self._closed:
            raise ConnectionError("the client has gone")
        head = self._head
        assert head is not None
        head.decorate(request, headers)
        framing = b"Transfer-Encoding: chunked\r\n" if length is None else length_line(length)
        if not head.keep_alive or self._listener.lifecycle.finishes:
            framing += CLOSE
        lines = lines_of(headers.items())
        self._transport.write(head_of(status, lines, framing))
        self._started_response = started = StartedResponse(
            status, self._transport, self.flow, chunked=length is None
        )
        return started

    def close(self) -> None:
        """End it when what is written has gone out."""
        self._closed = True
        if not self._transport.is_closing():  # asyncio's own for TLS is lost when closed twice
            self._transport.close()
        if self._client.unwritten:
            self._listener.connections.await_reader(self._client)

    def end(self) -> asyncio.Task[None] | None:
        """Close, at once if nothing is on its way out; the task to wait for, if one was running."""
        if self._request is not None and self._task is not None:
            self._task.cancel()  # and that aborts
            return self._task
        end = self.close if self._client.unread else self.abort
        end()
        return None

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()


def _may_become_one(start: bytes) -> bool:
    """Return whether a head that begins with ``start`` can be one for here."""
    return POST.startswith(start[: len(POST)]) and start.count(b"\n") == start.count(b"\r\n")
