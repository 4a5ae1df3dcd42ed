"""A request to a backend, and its outcome."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from gateway.backends.backend import Backend
from gateway.backends.served import Served
from gateway.errors import GatewayError
from gateway.http.response import StartedResponse
from gateway.proxy.dialect import OPENAI, Dialect
from gateway.proxy.ending import Ending
from gateway.proxy.gathered import Gatherer
from gateway.proxy.heartbeat import Passed, Pulse
from gateway.proxy.sse import Usage
from gateway.proxy.telling import Flow
from gateway.upstream import UpstreamRequest

if TYPE_CHECKING:
    from gateway.conversations.stray import Stray
    from gateway.conversations.turn import Turn


#: Of the slots that there may be.
_LEADS = tuple(b'{"id_slot":%d,' % slot for slot in range(256))


class Mender(Passed, Protocol):
    """A mender of one stream of events: see :class:`gateway.proxy.numbering.Numbering`."""

    over: bool

    def feed(self, data: bytes, /) -> bytes: ...

    def pulse(self, words: bytes, waiting: bool, /) -> bytes: ...

    def last(self, event: bytes, error: GatewayError, /) -> bytes: ...


class StreamedBody:
    """A body that is passed on as it comes, with the number of bytes passed so far."""

    __slots__ = ("_pieces", "passed")

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        self._pieces = pieces
        self.passed = 0

    def __aiter__(self) -> StreamedBody:
        return self

    async def __anext__(self) -> bytes:
        piece = await anext(self._pieces)
        self.passed += len(piece)
        return piece

    async def aclose(self) -> None:
        """Read no more of it."""
        await self._pieces.aclose()


@dataclass(slots=True)
class Call(UpstreamRequest):
    """A request to a backend, with everything that is known of it while it is answered.

    ``headers`` are lines ready for the wire, without framing. A ``body`` that is streamed is sent
    once, never again, with ``body_length`` as its Content-Length, or chunked.
    """

    model: str
    method: str
    target: str
    headers: bytes
    body: bytes | StreamedBody
    body_length: int | None = None
    head_timeout: float | None = None
    #: The body that the client sent, if its messages differ from those in ``body``, kept as long as
    #: an error may be about them: errors count messages as the client does.
    asked: bytes | None = None
    #: Whether the client asked for a stream, in which something is sent even while it waits. None:
    #: unknown until the answer's head comes.
    stream: bool | None = False
    dialect: Dialect = OPENAI
    #: Whether several answers were asked for; whether for several prompts; and how many for each
    #: prompt.
    several: bool = False
    many_prompts: bool = False
    answers: int = 1
    #: Whether the answer holds timings that only the gateway asked for, to be removed again.
    strips_timings: bool = False
    #: Makes the reader of several answers that were asked for as a stream without the client's
    #: knowledge.
    gathers: Callable[[], Gatherer] | None = None
    #: Whether ``headers`` include the client's Accept-Encoding, so that the answer may be packed.
    coded: bool = False
    #: Changes a complete, successful JSON answer (given as bytes, and parsed) for the client.
    rewrite: Callable[[bytes, Any], bytes] | None = None
    #: Changes each piece of a stream of events on its way to the client.
    mender: Mender | None = None
    #: Makes what changes each piece of an answer that is no stream, and too long to be kept.
    flow: Callable[[], Flow] | None = None
    #: Our name for the model, where the server's answers have another one.
    renamed: str | None = None
    #: Makes the body, where the backend has to be asked first.
    prepare: Callable[[Backend], Awaitable[bytes]] | None = None
    #: The longest silence of a stream, in seconds: ``limits.heartbeat``.
    heartbeat: float = 10.0
    #: For these two see :class:`UpstreamRequest`.
    prefix: tuple[bytes, ...] = ()
    lead: bytes = b""
    #: Places its conversation in a slot, and the slot that the body must name then, if any.
    turn: Turn | Stray | None = None
    slot: int | None = None

    def request(self) -> UpstreamRequest:
        """Return what its backend is sent: itself, with its slot in the body if it names one."""
        slot = self.slot
        if slot is None:
            self.lead = b""
        else:  # of use to a body that is here
            self.lead = _LEADS[slot] if slot < 256 else b'{"id_slot":%d,' % slot
        return self

    @property
    def saved(self) -> Callable[[Served], int] | None:
        """What returns how much of its conversation a server can read back, if that is known."""
        return None if self.turn is None else self.turn.reach

    @property
    def passed(self) -> int:
        """Bytes of a streamed body that were passed on."""
        return self.body.passed if isinstance(self.body, StreamedBody) else 0

    @property
    def pulse(self) -> Pulse:
        """Makes the heartbeats of its stream."""
        return self.dialect.pulse if self.mender is None else self.mender.pulse

    async def break_off(
        self, started_response: StartedResponse, error: GatewayError, passed: Passed | None
    ) -> None:
        """End a stream of events, in which ``passed`` has gone out, with ``error``."""
        event = self.dialect.last_event(error, passed.half() if passed is not None else b"")
        if self.mender is not None:
            event = self.mender.last(event, error)
            if self.mender.complete and started_response.chunked:
                # It says in its own words that it has failed: as HTTP it ends as any other, and
                # its connection goes on, as the head that is out has said.
                started_response.write(event)
                await finish(started_response)
                return
        started_response.break_off(event)


class Coming(Protocol):
    """An answer that is on its way."""

    @property
    def events(self) -> int:
        """The number of events of a stream so far."""


@dataclass(slots=True, eq=False)
class Outcome:
    """The outcome of a call: filled in while it runs, read for accounting."""

    usage: Usage | None = None
    #: The number of events of a stream: without ``usage`` (it was cut off), the best guess at its
    #: tokens.
    events: int = 0
    #: Bytes of a complete answer that is no stream and told no ``usage``.
    untold: int = 0
    error: GatewayError | None = None
    #: The code of the error, if that is the whole answer.
    code: str | None = None
    #: If it had to wait for its model: when the wait ended (``time.perf_counter``), and for how
    #: many seconds the model was loading meanwhile.
    leased: float | None = None
    loading: float = 0.0
    #: When its answer began (``time.perf_counter``).
    began: float | None = None
    #: The handle by which it may be ended early.
    ending: Ending | None = None
    attempts: int = 0
    #: The id of its key, to recognise later requests of a client whose request killed a model.
    key: str = ""
    #: The id of the client's request, if there is one.
    request_id: str = ""
    #: The answer, as far as it has come.
    answer: Coming | None = None
    #: The request as it was sent to a backend. Its body is kept for as long as the answer takes: if
    #: the client hangs up, the prompt is counted.
    sent: Call | None = None
    #: Whether it was given up before its answer was complete, so that llama-server may still be at
    #: work on it for a while.
    given_up: bool = False
    #: Which of several llama-servers it was sent to, if its model may have several.
    server: Served | None = None
    #: The state of llama-server's slots when the client hung up: see gateway.proxy.parting.
    slots: asyncio.Task[bytes | None] | None = None

    def meaning(self, broke: BaseException) -> GatewayError:
        """Return the error that ``broke`` is, or means; raises it where it is none."""
        if isinstance(broke, GatewayError):
            return broke
        error = self.ending.meaning(broke) if self.ending is not None else None
        if error is None:
            try:
                raise broke
            finally:
                del broke  # its traceback has this frame: that would be a cycle
        return error

    def tell(self, error: GatewayError) -> GatewayError:
        """Return ``error`` as the client may see it."""
        return error


async def finish(started_response: StartedResponse) -> None:
    """End a stream that is complete."""
    with contextlib.suppress(ConnectionError):  # the client left in the last moment
        await started_response.finish()
