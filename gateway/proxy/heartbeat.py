"""The heartbeat of streams: something is sent at least every ``limits.heartbeat``.

From the moment a request that asked for a stream is accepted until its last byte, while it waits
for its model, while its prompt is read and between tokens; so nothing on the way (a proxy's
``proxy_read_timeout``, a client's own idle timer) takes a slow answer for a dead one. The head goes
out with the first heartbeat; what is refused before is a plain HTTP error.

One timer for each stream, and nothing for each chunk: when it fires, it looks whether the last
piece that went out is still the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from gateway.http.response import StartedResponse, StartResponse
from gateway.proxy.outgoing import open_events
from gateway.streams.kinds import EVENTS
from gateway.tasks import spawn

#: Seconds after which a client that waits for a model is first told so.
FIRST = 3.0
#: The time between two looks, as a share of the heartbeat. What was sent just after one look is
#: only noticed at the next, so it takes two looks until a beat is due, with a little to spare.
_LOOK = 0.45
#: A value that no piece is identical with.
_NOTHING_SEEN = b"-nothing-"


class Passed(Protocol):
    """A view of what of a stream of events has gone out to its client."""

    @property
    def latest(self) -> bytes | None:
        """The last piece of the stream."""

    @property
    def complete(self) -> bool:
        """Whether the last event of the stream has been passed."""

    def half(self) -> bytes | None:
        """Return what of an event that isn't complete yet; None where that is not known."""


#: Makes a heartbeat of ``(words, waiting)``: a remark without line ends, and whether the client
#: waits for a model. The result is a whole event, or a comment of one line with its line end.
Pulse = Callable[[bytes, bool], bytes]


def comment(words: bytes, waiting: bool = False) -> bytes:
    """Return a comment (WHATWG HTML, 9.2.5) without a blank line behind it.

    With one, openai-go before 3.50 takes it for an event without data, and gives up.
    """
    return b": %b\n" % words


class Heartbeat:
    """The heartbeat of one stream, which it opens when the first beat is due. It must be stopped.

    ``interval``: ``limits.heartbeat``, in seconds; ``kind``: the stream's media type. Nothing
    happens before :meth:`start`.
    """

    __slots__ = (
        "_flush",
        "_held",
        "_kind",
        "_look_after",
        "_opening",
        "_passed",
        "_pulse",
        "_seen",
        "_since",
        "_start_response",
        "_timer",
        "started_response",
        "waiting",
    )

    def __init__(
        self, start_response: StartResponse, interval: float, pulse: Pulse, kind: str = EVENTS
    ) -> None:
        self.started_response: StartedResponse | None = None
        #: Returns what to tell a client that waits for a model; None: it doesn't wait.
        self.waiting: Callable[[], bytes] | None = None
        self._start_response = start_response
        self._pulse = pulse
        self._kind = kind
        self._passed: Passed | None = None
        self._flush: Callable[[], None] | None = None
        self._held = False
        self._seen: bytes | None = _NOTHING_SEEN
        self._opening: asyncio.Task[None] | None = None
        self._since = time.monotonic()
        self._look_after = interval * _LOOK
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start beating, as soon as it is certain that there will be a stream."""
        self._look_in(min(FIRST, self._look_after))

    def stop(self) -> None:
        """Stop beating: the stream has ended, or there will be none."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if self._opening is not None:
            self._opening.cancel()
        self.waiting = self._flush = self._passed = None

    async def settled(self) -> StartedResponse | None:
        """Return the stream, if it has been started. Until it :meth:`flows`, nothing more happens
        here.
        """
        self._held = True
        if self._opening is not None:
            await asyncio.wait([self._opening])
        return self.started_response

    def flows(
        self, started_response: StartedResponse, passed: Passed, flush: Callable[[], None]
    ) -> None:
        """Watch ``passed``, which tells what goes out, after a call of ``flush``."""
        self.started_response = started_response
        self._passed = passed
        self._flush = flush
        self._seen = _NOTHING_SEEN
        self._held = False

    def _look_in(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._check_on_answer)

    def _check_on_answer(self) -> None:
        self._look_in(self._look_after)
        if self._held:
            return
        if self._flush is not None:
            self._flush()
        latest = self._passed.latest if self._passed is not None else None
        quiet = latest is self._seen
        self._seen = latest
        if self.waiting is None and not quiet:
            return
        if self.started_response is not None:
            self._beat(self.started_response)
        elif self._opening is None:
            self._opening = spawn(self._open(), name="open a stream early")

    async def _open(self) -> None:
        try:
            self.started_response = await open_events(self._start_response, self._kind)
        except ConnectionError:
            return  # the client has gone, and its request is about to be cancelled
        self._beat(self.started_response)

    def _beat(self, started_response: StartedResponse) -> None:
        if not started_response.takes_more:
            return  # a client that hasn't taken what is there doesn't wait for this
        half = self._passed.half() if self._passed is not None else b""
        seconds = time.monotonic() - self._since
        words = self.waiting() if self.waiting is not None else b"working"
        said = b"%b, %d s" % (words, seconds)
        if half is not None and is_between_events(half):
            started_response.write(self._pulse(said, self.waiting is not None))
        elif half is not None and half.endswith(b"\n"):
            started_response.write(comment(said))


def is_between_events(half: bytes) -> bool:
    """Return whether there is nothing in ``half`` but comments."""
    return not half or (
        half.endswith(b"\n") and all(line.startswith(b":") for line in half.splitlines())
    )
