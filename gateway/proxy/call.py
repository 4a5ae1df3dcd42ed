"""A request for a backend, and what became of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.backends.backend import Backend
from gateway.errors import GatewayError
from gateway.proxy.dialect import OPENAI, Dialect
from gateway.proxy.heartbeat import Passed, Pulse
from gateway.proxy.outgoing import Opened
from gateway.proxy.sse import Usage


class Mender(Passed, Protocol):
    """What mends one stream of events: see :class:`gateway.proxy.numbering.Numbering`."""

    def feed(self, data: bytes, /) -> bytes: ...

    def pulse(self, words: bytes, waiting: bool, /) -> bytes: ...

    def last(self, event: bytes, error: GatewayError, /) -> bytes: ...


@dataclass(slots=True)
class Call:
    """A request for a backend. ``headers`` are lines ready for the wire, without framing.

    A ``body`` that is iterated over is sent once, never again, with ``length`` as its
    Content-Length, or chunked.
    """

    model: str
    method: str
    target: str
    headers: bytes
    body: bytes | AsyncIterable[bytes]
    length: int | None = None
    #: What the client sent, where its messages are others in ``body``, until no error can be about
    #: them any more: errors count them as the client does.
    asked: bytes | None = None
    #: Whether the client asked for a stream: something goes out all the time, even while it waits.
    #: None: that stands where nobody looks, and the answer's head says it.
    stream: bool | None = False
    dialect: Dialect = OPENAI
    #: Whether several answers were asked for, of several prompts maybe.
    several: bool = False
    many_prompts: bool = False
    #: Whether its ``headers`` have the client's Accept-Encoding: what comes may be packed.
    coded: bool = False
    #: What a complete, successful JSON answer (as sent, and parsed) becomes for the client.
    rewrite: Callable[[bytes, Any], bytes] | None = None
    #: What each piece of a stream of events goes through on its way to the client.
    mender: Mender | None = None
    #: Our name for the model, where its server has another one for it in its answers.
    renamed: str | None = None
    #: Makes the body, where that takes a backend which can be asked first.
    prepare: Callable[[Backend], Awaitable[bytes]] | None = None
    #: Seconds, in which something goes out in its stream: ``limits.heartbeat``.
    heartbeat: float = 10.0

    @property
    def pulse(self) -> Pulse:
        """What makes its heartbeats."""
        return self.dialect.pulse if self.mender is None else self.mender.pulse

    async def break_off(self, opened: Opened, error: GatewayError, passed: Passed | None) -> None:
        """End a stream of events, in which ``passed`` has gone out, with ``error``."""
        event = self.dialect.last_event(error, passed.half() if passed is not None else b"")
        if self.mender is not None:
            event = self.mender.last(event, error)
            if self.mender.complete and opened.chunked:
                # It says in its own words that it has failed: as HTTP it ends as any other, and
                # its connection goes on, as the head that is out has said.
                opened.write(event)
                await finish(opened)
                return
        opened.break_off(event)


@dataclass(slots=True)
class Outcome:
    """What became of a call: filled in while it runs, read for accounting."""

    usage: Usage | None = None
    #: Events of a stream. Without ``usage`` (it was cut off) the best guess at its tokens.
    events: int = 0
    error: GatewayError | None = None
    attempts: int = 0
    #: What a backend was sent. Its body stays here for as long as the answer takes: if that is
    #: hung up on, the prompt is counted.
    sent: Call | None = None

    def tell(self, error: GatewayError) -> GatewayError:
        """``error`` as the client may see it."""
        return error


async def finish(opened: Opened) -> None:
    """End a stream that is complete."""
    with contextlib.suppress(ConnectionError):  # the client left in the last moment
        await opened.finish()
